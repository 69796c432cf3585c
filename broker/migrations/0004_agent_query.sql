-- Questions to agents. A row lives while somebody waits for the answer: whoever asked removes it.
create table agent_query (
  id uuid primary key,
  agent_id uuid not null references agent on delete cascade,
  -- The key that asked.
  asked_by uuid not null,
  -- Bytes of a Query.
  query bytea not null,
  asked_at timestamptz not null default now(),
  -- Nothing later than this counts.
  deadline timestamptz not null,
  -- Bytes of an Answer, with the session it came under.
  answer bytea,
  epoch bigint,
  answered_at timestamptz
);
create index agent_query_agent on agent_query (agent_id);
create index agent_query_deadline on agent_query (deadline);
