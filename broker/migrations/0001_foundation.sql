-- The foundation: identities and keys, stacks and their content, targeting, delivery, the change feed, events, audit.
-- No schema names: search_path decides where the instance lives.

-- The database itself. incarnation changes when its history turns out to be another one (a restored backup).
create table broker_state (
  only_row boolean primary key default true check (only_row),
  incarnation uuid not null default gen_random_uuid(),
  deletions_held_since timestamptz,
  created_at timestamptz not null default now()
);
insert into broker_state default values;

create table generator (
  id uuid primary key default gen_random_uuid(),
  name varchar(255) not null,
  description text,
  is_active boolean not null default true,
  is_system boolean not null default false,
  last_active_at timestamptz,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create unique index generator_name_key on generator (name) where deleted_at is null;
insert into generator (name, description, is_system) values ('__system__', 'built-in, no tenant', true);
insert into generator (name, description) values ('admin-generator', 'owns the stacks that admins create without naming a generator');

create table agent (
  id uuid primary key default gen_random_uuid(),
  name varchar(255) not null,
  cluster_name varchar(255) not null,
  status text not null default 'ACTIVE' constraint agent_status_check check (status in ('ACTIVE', 'INACTIVE')),
  acceptance text constraint agent_acceptance_check check (acceptance in ('all', 'registered')),
  last_heartbeat timestamptz,
  k8s_reachable boolean,
  k8s_api_latency_ms integer,
  k8s_reported_at timestamptz,
  agent_version text,
  kubernetes_version text,
  cluster_uid text,
  cluster_seen_at timestamptz,
  capabilities jsonb not null default '{}',
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create unique index agent_name_key on agent (name, cluster_name) where deleted_at is null;

create table agent_label (
  id uuid primary key default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  label varchar(64) not null,
  constraint agent_label_key unique (agent_id, label)
);
create index agent_label_label on agent_label (label, agent_id);

create table agent_annotation (
  id uuid primary key default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  key varchar(64) not null,
  value varchar(64) not null,
  constraint agent_annotation_key unique (agent_id, key)
);
create index agent_annotation_pair on agent_annotation (key, value, agent_id);

create table agent_generator_registration (
  id uuid primary key default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  generator_id uuid not null references generator on delete cascade,
  registered_at timestamptz not null default now(),
  constraint registration_key unique (agent_id, generator_id)
);
create index registration_generator on agent_generator_registration (generator_id);

-- Keys. Several per identity; only the hash of the secret part is here.
create table api_key (
  id uuid primary key default gen_random_uuid(),
  role text not null constraint api_key_role_check check (role in ('admin', 'agent', 'generator')),
  agent_id uuid references agent on delete cascade,
  generator_id uuid references generator on delete cascade,
  name varchar(255) not null,
  short_token text not null,
  hash text not null constraint api_key_hash_key unique constraint api_key_hash_check check (hash ~ '^[0-9a-f]{64}$'),
  read_only boolean not null default false,
  scope jsonb,
  expires_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint api_key_identity_check check (
    (role = 'admin' and agent_id is null and generator_id is null)
    or (role = 'agent' and agent_id is not null and generator_id is null)
    or (role = 'generator' and generator_id is not null and agent_id is null)
  )
);
create index api_key_agent on api_key (agent_id) where agent_id is not null;
create index api_key_generator on api_key (generator_id) where generator_id is not null;

-- Stacks. The head is {deployment object, options}; every change of it raises the generation.
create table stack (
  id uuid primary key default gen_random_uuid(),
  name varchar(255) not null,
  description text,
  generator_id uuid not null references generator,
  salt bytea not null,
  generation bigint not null default 0,
  deployment_object_id uuid,
  manifest_digest bytea,
  options bytea not null default '',
  options_digest bytea not null,
  deletion_policy text not null default 'delete' constraint stack_deletion_policy_check check (deletion_policy in ('delete', 'orphan', 'delete_and_wait')),
  traceparent text,
  head_at timestamptz,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create unique index stack_name_key on stack (generator_id, name) where deleted_at is null;
create index stack_name on stack (name);

create table stack_label (
  id uuid primary key default gen_random_uuid(),
  stack_id uuid not null references stack on delete cascade,
  label varchar(64) not null,
  constraint stack_label_key unique (stack_id, label)
);
create index stack_label_label on stack_label (label, stack_id);

create table stack_annotation (
  id uuid primary key default gen_random_uuid(),
  stack_id uuid not null references stack on delete cascade,
  key varchar(64) not null,
  value varchar(64) not null,
  constraint stack_annotation_key unique (stack_id, key)
);
create index stack_annotation_pair on stack_annotation (key, value, stack_id);

create table agent_target (
  id uuid primary key default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  stack_id uuid not null references stack on delete cascade,
  constraint agent_target_key unique (agent_id, stack_id)
);
create index agent_target_stack on agent_target (stack_id);

-- Content. Immutable snapshots; the YAML text is history and stays.
create table deployment_object (
  id uuid primary key default gen_random_uuid(),
  sequence_id bigserial not null constraint deployment_object_sequence_key unique,
  stack_id uuid not null references stack on delete cascade,
  revision bigint not null,
  yaml_content text not null,
  yaml_checksum text not null,
  is_deletion_marker boolean not null default false,
  manifest bytea not null,
  manifest_digest bytea not null,
  object_count integer not null,
  submitted_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint deployment_object_revision_key unique (stack_id, revision)
);
alter table stack add constraint stack_head_fkey foreign key (deployment_object_id) references deployment_object deferrable initially deferred;

create function deployment_object_is_immutable() returns trigger language plpgsql as $$
begin
  if (to_jsonb(old) - 'deleted_at' - 'updated_at') is distinct from (to_jsonb(new) - 'deleted_at' - 'updated_at') then
    raise exception 'deployment object % is immutable', old.id using errcode = 'check_violation', constraint = 'deployment_object_immutable';
  end if;
  return new;
end $$;
create trigger deployment_object_immutable before update on deployment_object
  for each row execute function deployment_object_is_immutable();

-- YAML documents by SHA-256 of their text. encoding: identity or zstd; key_id names the key when encrypted at rest.
create table blob (
  digest bytea primary key,
  size integer not null,
  encoding text not null,
  key_id text,
  bytes bytea not null,
  touched_at timestamptz not null default now()
);
alter table blob alter column bytes set storage external;
create index blob_touched on blob (touched_at);

create table blob_ref (
  deployment_object_id uuid not null references deployment_object on delete cascade,
  digest bytea not null references blob,
  primary key (deployment_object_id, digest)
);
create index blob_ref_digest on blob_ref (digest);

-- Heads that were: what was deployed at any time, and what a held or rolled-back agent may fetch.
create table stack_generation (
  stack_id uuid not null references stack on delete cascade,
  generation bigint not null,
  deployment_object_id uuid references deployment_object,
  options bytea not null,
  options_digest bytea not null,
  cause text not null,
  actor_type text not null,
  actor_id uuid,
  created_at timestamptz not null default now(),
  primary key (stack_id, generation)
);

-- What an agent should have instead of the head, while a rollout holds it back.
create table release (
  agent_id uuid not null references agent on delete cascade,
  stack_id uuid not null references stack on delete cascade,
  generation bigint not null,
  reason text not null,
  created_at timestamptz not null default now(),
  primary key (agent_id, stack_id)
);

-- What an agent was told and what it answered. A row with desired = tombstone stays until the agent reports the prune.
create table delivery (
  agent_id uuid not null references agent on delete cascade,
  stack_id uuid not null references stack on delete cascade,
  desired text not null constraint delivery_desired_check check (desired in ('entry', 'tombstone')),
  policy text,
  approved boolean not null default false,
  generation bigint not null,
  received_generation bigint not null default 0,
  received_manifest_digest bytea,
  applied_generation bigint not null default 0,
  phase text not null default 'pending',
  health text not null default 'unknown',
  message text,
  objects bytea,
  objects_total integer not null default 0,
  objects_ready integer not null default 0,
  received_at timestamptz,
  applied_at timestamptz,
  healthy_at timestamptz,
  updated_at timestamptz not null default now(),
  primary key (agent_id, stack_id)
);
create index delivery_stack on delivery (stack_id);

-- Replicas and sessions. Every write on behalf of an agent carries its epoch.
create table replica (
  id uuid primary key,
  address text,
  version text not null,
  started_at timestamptz not null default now(),
  lease_until timestamptz not null
);

create table agent_session (
  agent_id uuid primary key references agent on delete cascade,
  epoch bigint not null,
  replica_id uuid,
  token_hash bytea,
  install_id text,
  cluster_uid text,
  process_id text,
  process_started_at timestamptz,
  superseded text[] not null default '{}',
  transport text,
  key_id uuid,
  connected_at timestamptz,
  last_seen_at timestamptz,
  closed_at timestamptz
);

-- The change feed. Rows are read only below the oldest transaction still running; the cursor is (xid, seq).
create table change_log (
  seq bigserial not null,
  xid xid8 not null default pg_current_xact_id(),
  nonce bigint not null default (('x' || encode(substr(uuid_send(gen_random_uuid()), 9, 8), 'hex'))::bit(64)::bigint),
  kind text not null constraint change_log_kind_check check (kind in ('stack', 'agent', 'key', 'broker')),
  stack_id uuid,
  agent_id uuid,
  at timestamptz not null default now(),
  primary key (xid, seq)
);

-- Events: one for each attempt, for ever unless a retention is set; partitioned by time.
create table event_cursor (
  agent_id uuid not null references agent on delete cascade,
  boot_id text not null,
  through_seq bigint not null,
  updated_at timestamptz not null default now(),
  primary key (agent_id, boot_id)
);

create table agent_event (
  id uuid not null default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  stack_id uuid references stack on delete cascade,
  deployment_object_id uuid references deployment_object on delete cascade,
  generation bigint,
  attempt_id text,
  event_type varchar(50) not null,
  status varchar(10) not null constraint agent_event_status_check check (status in ('SUCCESS', 'FAILURE')),
  message text,
  objects bytea,
  counts jsonb,
  duration_ms integer,
  occurred_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  primary key (created_at, id)
) partition by range (created_at);
create index agent_event_id on agent_event (id);
create index agent_event_agent on agent_event (agent_id, created_at desc);
create index agent_event_stack on agent_event (stack_id, created_at desc);
create index agent_event_object on agent_event (deployment_object_id, agent_id);
create index agent_event_attempt on agent_event (attempt_id);
create table agent_event_default partition of agent_event default;

create table deployment_health (
  id uuid primary key default gen_random_uuid(),
  agent_id uuid not null references agent on delete cascade,
  deployment_object_id uuid not null references deployment_object on delete cascade,
  status text not null constraint deployment_health_status_check check (status in ('healthy', 'degraded', 'failing', 'unknown')),
  summary text,
  checked_at timestamptz not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint deployment_health_key unique (agent_id, deployment_object_id)
);
create index deployment_health_object on deployment_health (deployment_object_id);

-- Who changed what; written in the transaction of the change; partitioned by time.
create table audit_log (
  id uuid not null default gen_random_uuid(),
  timestamp timestamptz not null default now(),
  actor_type text not null,
  actor_id uuid,
  key_id uuid,
  action text not null,
  resource_type text not null,
  resource_id uuid,
  details jsonb,
  ip_address text,
  user_agent text,
  created_at timestamptz not null default now(),
  primary key (timestamp, id)
) partition by range (timestamp);
create index audit_log_time on audit_log (timestamp desc);
create index audit_log_resource on audit_log (resource_id, timestamp desc);
create table audit_log_default partition of audit_log default;

-- Answers to requests that carried an Idempotency-Key, kept for a day.
create table idempotency_key (
  actor text not null,
  key varchar(255) not null,
  method text not null,
  request_hash bytea not null,
  response bytea not null,
  headers jsonb not null default '{}',
  created_at timestamptz not null default now(),
  primary key (actor, key)
);
create index idempotency_key_age on idempotency_key (created_at);

-- Which stacks reach which agents, by which rule. The one definition of targeting; every reader filters it.
create view targeting as
  select m.agent_id, m.stack_id, m.method, m.detail
  from (
    select t.agent_id, t.stack_id, 'direct' as method, '' as detail from agent_target t
    union all
    select a.agent_id, s.stack_id, 'label', a.label
      from stack_label s join agent_label a on a.label = s.label
    union all
    select a.agent_id, s.stack_id, 'annotation', a.key || '=' || a.value
      from stack_annotation s join agent_annotation a on a.key = s.key and a.value = s.value
  ) m;

-- Delivered state: the head, unless a release row says otherwise. Stacks without content deliver nothing.
create view released as
  select s.id as stack_id, r.agent_id, coalesce(r.generation, s.generation) as generation
  from stack s left join release r on r.stack_id = s.id
  where s.deleted_at is null;
