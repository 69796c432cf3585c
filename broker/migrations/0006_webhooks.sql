-- Webhooks: subscriptions, and one delivery for each event that a subscription wants. Triggers make the deliveries, in the
-- transaction of what happened and whatever way it came: REST, RPC, the agents' stream.

create table webhook_subscription (
  id uuid primary key,
  name varchar(255) not null,
  event_types text[] not null,
  filter_agent_id uuid,
  filter_stack_id uuid,
  filter_labels text[] not null default '{}',
  enabled boolean not null default true,
  disabled_reason text,
  max_retries integer not null constraint webhook_max_retries_check check (max_retries between 0 and 10),
  timeout_seconds integer not null constraint webhook_timeout_check check (timeout_seconds between 1 and 300),
  has_auth_header boolean not null,
  -- URL, authorization header and signing secrets as JSON; key_id names the key when encrypted at rest.
  sealed bytea not null,
  key_id text,
  created_by text,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table webhook_delivery (
  id uuid primary key default gen_random_uuid(),
  subscription_id uuid not null references webhook_subscription on delete cascade,
  event_type varchar(100) not null,
  event_id uuid not null,
  -- The body as it is posted and signed.
  payload text not null,
  status text not null default 'pending'
    constraint webhook_delivery_status_check check (status in ('pending', 'acquired', 'success', 'failed', 'dead')),
  -- When a replica may take it: at once, at the next attempt, or when the lease of the replica that sends it is over. Null when done.
  due_at timestamptz default now(),
  acquired_by uuid,
  attempts integer not null default 0,
  last_attempt_at timestamptz,
  last_error_kind text,
  last_error text,
  status_code integer,
  created_at timestamptz not null default now(),
  completed_at timestamptz,
  constraint webhook_delivery_due_check check ((due_at is null) = (status in ('success', 'dead')))
);
create index webhook_delivery_due on webhook_delivery (due_at) where due_at is not null;
create index webhook_delivery_queue on webhook_delivery (subscription_id, due_at) where due_at is not null;
create index webhook_delivery_history on webhook_delivery (subscription_id, created_at desc, id desc);
create index webhook_delivery_feed on webhook_delivery (created_at desc, id desc);
create index webhook_delivery_completed on webhook_delivery (completed_at) where completed_at is not null;

create function webhook_time(at timestamptz) returns text language sql immutable as $$
  select to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Wakes the replicas when the transaction commits. The channel is the one that broker/database.ts calls "webhook" in this schema.
create function webhook_wake() returns void language sql as $$
  select pg_notify('brokkr_' || left(encode(sha256(convert_to(current_schema(), 'UTF8')), 'hex'), 16) || '_webhook', '')
$$;

-- Queues an event for whoever wants it.
create function webhook_queue(event text, of_agent uuid, of_stack uuid, data json) returns void language plpgsql as $$
declare
  new_id uuid := gen_random_uuid();
begin
  insert into webhook_delivery (subscription_id, event_type, event_id, payload)
  select s.id, event, new_id,
    json_build_object('id', new_id, 'event_type', event, 'timestamp', webhook_time(now()), 'data', data)::text
  from webhook_subscription s
  where s.enabled
    and s.event_types && array[event, split_part(event, '.', 1) || '.*', '*']
    and (s.filter_agent_id is null or s.filter_agent_id = of_agent)
    and (s.filter_stack_id is null or s.filter_stack_id = of_stack)
    and not exists (
      select from unnest(s.filter_labels) wanted(label)
      where not exists (select from stack_label l where l.stack_id = of_stack and l.label = wanted.label));
  if found then
    perform webhook_wake();
  end if;
end $$;

create function webhook_on_agent() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform webhook_queue('agent.registered', new.id, null, json_build_object('agent_id', new.id, 'name', new.name,
      'cluster_name', new.cluster_name, 'status', new.status, 'created_at', webhook_time(new.created_at)));
  else
    perform webhook_queue('agent.deregistered', new.id, null,
      json_build_object('agent_id', new.id, 'deleted_at', webhook_time(new.deleted_at)));
  end if;
  return null;
end $$;
create trigger webhook_agent_added after insert on agent for each row execute function webhook_on_agent();
create trigger webhook_agent_deleted after update of deleted_at on agent for each row
  when (old.deleted_at is null and new.deleted_at is not null) execute function webhook_on_agent();

create function webhook_on_stack() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform webhook_queue('stack.created', null, new.id, json_build_object('stack_id', new.id, 'name', new.name,
      'description', new.description, 'created_at', webhook_time(new.created_at)));
  else
    perform webhook_queue('stack.deleted', null, new.id,
      json_build_object('stack_id', new.id, 'deleted_at', webhook_time(new.deleted_at)));
  end if;
  return null;
end $$;
-- Deferred: the labels that a filter asks for are written after the stack, in the same transaction.
create constraint trigger webhook_stack_added after insert on stack deferrable initially deferred
  for each row execute function webhook_on_stack();
create trigger webhook_stack_deleted after update of deleted_at on stack for each row
  when (old.deleted_at is null and new.deleted_at is not null) execute function webhook_on_stack();

create function webhook_on_deployment() returns trigger language plpgsql as $$
begin
  perform webhook_queue('deployment.created', null, new.stack_id, json_build_object('deployment_object_id', new.id,
    'stack_id', new.stack_id, 'sequence_id', new.sequence_id, 'is_deletion_marker', new.is_deletion_marker,
    'created_at', webhook_time(new.created_at)));
  return null;
end $$;
create constraint trigger webhook_deployment_added after insert on deployment_object deferrable initially deferred
  for each row execute function webhook_on_deployment();

-- Once for each statement: agents report in sets of hundreds, which cost nothing here while nobody subscribes.
create function webhook_on_agent_events() returns trigger language plpgsql as $$
begin
  perform webhook_queue(case e.status when 'SUCCESS' then 'deployment.applied' else 'deployment.failed' end,
    e.agent_id, e.stack_id, json_build_object('agent_event_id', e.id, 'agent_id', e.agent_id,
      'deployment_object_id', e.deployment_object_id, 'stack_id', e.stack_id, 'event_type', e.event_type,
      'status', e.status, 'message', e.message, 'created_at', webhook_time(e.created_at)))
  from added e where exists (select from webhook_subscription where enabled);
  return null;
end $$;
create trigger webhook_agent_events_added after insert on agent_event referencing new table as added
  for each statement execute function webhook_on_agent_events();
