-- Selectors of stacks, and gates of publications.

-- The version at the front of a text, to compare with others: v1.36.3-rc.1 is {1,36,3}. Null when there is none.
-- One expression, so that the planner puts it in place of the call.
create function version_numbers(text) returns integer[] language sql immutable as $$
  select (string_to_array(substring($1 from '^v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})(?:[-+].*)?$') || '.0.0', '.')::integer[])[1:3]
$$;

-- What agents report, one row a key, so that selectors find agents by an index. Written by the trigger from the agent's row.
create table agent_capability (
  agent_id uuid not null references agent on delete cascade,
  key text not null,
  value text not null,
  version integer[] generated always as (version_numbers(value)) stored,
  primary key (agent_id, key)
);
create index agent_capability_key on agent_capability (key, agent_id);

create function index_capabilities() returns trigger language plpgsql as $$
declare
  reported jsonb := jsonb_strip_nulls(new.capabilities || jsonb_build_object('kubernetes_version', nullif(new.kubernetes_version, '')));
begin
  delete from agent_capability where agent_id = new.id and (reported ->> key) is distinct from value;
  insert into agent_capability (agent_id, key, value)
    select new.id, e.key, e.value from jsonb_each_text(reported) e on conflict do nothing;
  return null;
end $$;
create trigger agent_capabilities_inserted after insert on agent for each row execute function index_capabilities();
create trigger agent_capabilities_changed after update of capabilities, kubernetes_version on agent for each row
  when ((old.capabilities, old.kubernetes_version) is distinct from (new.capabilities, new.kubernetes_version))
  execute function index_capabilities();
insert into agent_capability (agent_id, key, value)
  select a.id, e.key, e.value from agent a
  cross join jsonb_each_text(jsonb_strip_nulls(a.capabilities || jsonb_build_object('kubernetes_version', nullif(a.kubernetes_version, '')))) e;

-- A selector as its owner wrote it (bytes of the message Selector) and, for matching, as alternatives (clauses) of terms that
-- all have to hold. Labels have the empty key; every holds for every agent. A term has a bit of its own in its clause, and
-- wanted is the bits of the terms of the clause that want something to be there.
alter table stack add column selector bytea;
create table stack_selector_term (
  stack_id uuid not null references stack on delete cascade,
  clause smallint not null,
  bit bigint not null,
  wanted bigint not null,
  source text not null constraint stack_selector_term_source_check check (source in ('agent', 'label', 'annotation', 'capability')),
  key text not null,
  operator text not null constraint stack_selector_term_operator_check
    check (operator in ('every', 'in', 'not_in', 'exists', 'does_not_exist', 'gte', 'lt')),
  operands text[] not null default '{}',
  version integer[] generated always as (version_numbers(operands[1])) stored,
  primary key (stack_id, clause, bit)
);
create index stack_selector_term_key on stack_selector_term (source, key);

-- Which selectors hold for which agents. Terms meet what agents have; a clause holds when what its terms found is all that it
-- wants, and nothing that a not_in or does_not_exist found.
create view selected as
  select m.agent_id, m.stack_id
  from (
    select a.id as agent_id, t.stack_id, t.clause, t.bit, t.wanted from stack_selector_term t join agent a on t.source = 'agent'
    union all
    select l.agent_id, t.stack_id, t.clause, t.bit, t.wanted
      from stack_selector_term t join agent_label l on t.source = 'label' and l.label = any(t.operands)
    union all
    select n.agent_id, t.stack_id, t.clause, t.bit, t.wanted
      from stack_selector_term t join agent_annotation n on t.source = 'annotation' and n.key = t.key
      where t.operator in ('exists', 'does_not_exist') or n.value = any(t.operands)
    union all
    select c.agent_id, t.stack_id, t.clause, t.bit, t.wanted
      from stack_selector_term t join agent_capability c on t.source = 'capability' and c.key = t.key
      where case t.operator when 'gte' then c.version >= t.version when 'lt' then c.version < t.version
        when 'in' then c.value = any(t.operands) when 'not_in' then c.value = any(t.operands) else true end
  ) m
  group by m.agent_id, m.stack_id, m.clause, m.wanted
  having bit_or(m.bit) = m.wanted;

create or replace view targeting as
  select m.agent_id, m.stack_id, m.method, m.detail
  from (
    select t.agent_id, t.stack_id, 'direct' as method, '' as detail from agent_target t
    union all
    select a.agent_id, s.stack_id, 'label', a.label
      from stack_label s join agent_label a on a.label = s.label
    union all
    select a.agent_id, s.stack_id, 'annotation', a.key || '=' || a.value
      from stack_annotation s join agent_annotation a on a.key = s.key and a.value = s.value
    union all
    select c.agent_id, c.stack_id, 'selector', '' from selected c
  ) m;

-- The gate of a head: windows is an array of {days (ISO, empty: all), start, minutes, time_zone}. Null: open at any time.
alter table stack_generation add column not_before timestamptz, add column windows jsonb;

-- When a gate is open, around and after a moment: the periods that are on then or begin within eight days after both it and not_before.
create function gate_periods(not_before timestamptz, windows jsonb, at timestamptz)
returns table (opens timestamptz, closes timestamptz) language sql stable as $$
  select coalesce(not_before, '-infinity'), timestamptz 'infinity' where windows is null
  union all
  select greatest(o.opens, not_before), o.closes
  from jsonb_array_elements(windows) w
  cross join lateral (select w ->> 'time_zone' as zone) z
  -- a window of 24 hours that began two dates ago can still be on when clocks were put forward in between
  cross join lateral (select (greatest(at, not_before) at time zone z.zone)::date + d as day from generate_series(-2, 8) d) c
  cross join lateral (select (c.day + (w ->> 'start')::time) at time zone z.zone as opens) b
  cross join lateral (select b.opens, b.opens + (w ->> 'minutes')::integer * interval '1 minute' as closes) o
  where (w -> 'days' = '[]' or w -> 'days' @> to_jsonb(extract(isodow from c.day)::integer))
    and o.closes > coalesce(not_before, '-infinity')
$$;

-- The newest generation of a stack whose gate is open now, and until when that is the answer. Looks at the last 100.
create function gate_state(stack uuid, head bigint, out generation bigint, out until timestamptz) language sql stable as $$
  with recent as materialized (
    select g.generation, g.not_before, g.windows, g.not_before is null and g.windows is null as free
    from stack_generation g where g.stack_id = stack and g.generation <= head order by g.generation desc limit 100
  ), period as materialized (
    select g.generation, p.opens, p.closes from recent g cross join gate_periods(g.not_before, g.windows, now()) p
    where g.generation >= (select coalesce(max(f.generation), 0) from recent f where f.free)
  )
  select (select max(p.generation) from period p where p.opens <= now() and now() < p.closes),
    (select coalesce(min(t.at), 'infinity') from period p cross join lateral (values (p.opens), (p.closes)) t (at) where t.at > now())
$$;

-- The answer of gate_state, kept so that reading target state costs nothing more: true until open_until, then worked out anew.
-- gated: the head has a gate.
alter table stack add column gated boolean not null default false, add column open_generation bigint, add column open_until timestamptz;
create index stack_open_until on stack (open_until) where gated;

-- What every agent should have of every stack that reaches it: the head, unless a release row or the head's gate says
-- otherwise (held). Behind a closed gate that is the newest generation with an open one, or what the agent has received (an agent
-- without sessions: has sent an event about) and heads after it with the same content; null when there is none of these.
drop view released;
create view released as
  select p.agent_id, p.stack_id, s.generation as head, r.reason as release_reason, e.generation,
    r.generation is null and e.generation is distinct from s.generation as held
  from (select distinct t.agent_id, t.stack_id from targeting t) p
  join stack s on s.id = p.stack_id and s.deleted_at is null
  cross join lateral (
    select case when now() < s.open_until then s.open_generation else (select n.generation from gate_state(s.id, s.generation) n) end as generation
  ) o
  left join release r on r.agent_id = p.agent_id and r.stack_id = p.stack_id
  cross join lateral (
    select coalesce(r.generation, case when not s.gated or o.generation = s.generation then s.generation else greatest(o.generation, (
      select max(g.generation) from stack_generation g
      where g.stack_id = s.id and g.generation > coalesce(o.generation, 0) and g.generation <= s.generation and (
        exists (
          select from delivery d join stack_generation h on h.stack_id = d.stack_id and h.generation = d.received_generation
          where d.agent_id = p.agent_id and d.stack_id = s.id and d.desired = 'entry'
            and (g.generation = h.generation or g.generation > h.generation and g.deployment_object_id = h.deployment_object_id))
        or exists (select from agent_event v where v.agent_id = p.agent_id and v.deployment_object_id = g.deployment_object_id)
          and not exists (select from agent_session n where n.agent_id = p.agent_id))
    )) end) as generation
  ) e;
