-- Rollback and pause: what an agent went back from and to, what waits for approval, and stacks paused on one agent.

alter table delivery
  add column refused_generation bigint not null default 0,
  add column good_generation bigint not null default 0,
  add column awaiting_approval integer not null default 0;

-- A stack that is paused on one agent, whatever its head says.
create table agent_pause (
  agent_id uuid not null references agent on delete cascade,
  stack_id uuid not null references stack on delete cascade,
  created_at timestamptz not null default now(),
  primary key (agent_id, stack_id)
);
create index agent_pause_stack on agent_pause (stack_id);
