-- Traces: the W3C trace context of what made a head, an event and a webhook delivery, where it is sampled.

-- Replaces stack.traceparent, which replicas of the version before still write: a head that a gate holds back has its own.
alter table stack_generation add column traceparent text;
alter table agent_event add column traceparent text;
alter table webhook_delivery add column traceparent text;

-- Queues an event for whoever wants it. Without a context of its own it takes that of the request whose transaction this is.
create function webhook_queue(event text, of_agent uuid, of_stack uuid, data json, of_trace text) returns void language plpgsql as $$
declare
  new_id uuid := gen_random_uuid();
begin
  insert into webhook_delivery (subscription_id, event_type, event_id, payload, traceparent)
  select s.id, event, new_id,
    json_build_object('id', new_id, 'event_type', event, 'timestamp', webhook_time(now()), 'data', data)::text,
    coalesce(of_trace, nullif(current_setting('brokkr.traceparent', true), ''))
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

create or replace function webhook_queue(event text, of_agent uuid, of_stack uuid, data json) returns void language sql as $$
  select webhook_queue(event, of_agent, of_stack, data, null)
$$;

create or replace function webhook_on_agent_events() returns trigger language plpgsql as $$
begin
  perform webhook_queue(case e.status when 'SUCCESS' then 'deployment.applied' else 'deployment.failed' end,
    e.agent_id, e.stack_id, json_build_object('agent_event_id', e.id, 'agent_id', e.agent_id,
      'deployment_object_id', e.deployment_object_id, 'stack_id', e.stack_id, 'event_type', e.event_type,
      'status', e.status, 'message', e.message, 'created_at', webhook_time(e.created_at)), e.traceparent)
  from added e where exists (select from webhook_subscription where enabled);
  return null;
end $$;
