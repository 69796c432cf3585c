-- Webhooks whose deliveries agents send: acquired_by is an agent's id then.

alter table webhook_subscription add column target_labels text[] not null default '{}';

-- Whether an agent may send what wants these labels: it is ACTIVE and has all of them.
create function webhook_may_send(of_agent uuid, wanted text[]) returns boolean language sql stable as $$
  select exists (select from agent a where a.id = of_agent and a.status = 'ACTIVE' and a.deleted_at is null)
    and not exists (
      select from unnest(wanted) w(label)
      where not exists (select from agent_label l where l.agent_id = of_agent and l.label = w.label))
$$;
