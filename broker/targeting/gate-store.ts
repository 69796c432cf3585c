import type { Queryable } from '../database.ts';
import type { StoredGate } from './gate.ts';

/** Stacks looked at by one statement; the rest follows at once. */
const BATCH = 500;

/** The gate of a generation; undefined when there is no such generation. */
export async function findGate(tx: Queryable, stackId: string, generation: string): Promise<StoredGate | undefined> {
  const rows = await tx.query<StoredGate>(
    'select not_before, windows from stack_generation where stack_id = $1 and generation = $2',
    [stackId, generation],
  );
  return rows[0];
}

/** When the gate of a stack's head opens next; null when it is open now, or has none. */
export async function findOpening(db: Queryable, stackId: string): Promise<string | null> {
  const rows = await db.query<{ opens: string | null }>(
    `select min(p.opens) as opens
     from stack s join stack_generation g on g.stack_id = s.id and g.generation = s.generation
     cross join gate_periods(g.not_before, g.windows, now()) p
     where s.id = $1 and s.gated and p.closes > now()
     having min(p.opens) > now()`,
    [stackId],
  );
  return rows[0]?.opens ?? null;
}

/** Works out which generation of a stack with a gated head is open now. Call when the head has moved, in that transaction. */
export async function refreshGate(tx: Queryable, stackId: string): Promise<void> {
  await tx.query(
    `update stack s set (open_generation, open_until) = (select n.generation, n.until from gate_state(s.id, s.generation) n)
     where s.id = $1`,
    [stackId],
  );
}

/**
 * Stacks of which a gate has opened or closed: works out what is open now and tells the change log. Returns how many. Rows
 * that another replica, or a publication, holds at this moment are skipped.
 */
export async function passGates(tx: Queryable): Promise<number> {
  const rows = await tx.query(
    `with due as (
       select id, generation from stack where gated and deleted_at is null and open_until <= now()
       order by open_until limit $1 for no key update skip locked
     ), passed as (
       update stack s set open_generation = n.generation, open_until = n.until
       from due d cross join lateral gate_state(d.id, d.generation) n where s.id = d.id returning s.id
     )
     insert into change_log (kind, stack_id) select 'stack', id from passed returning seq`,
    [BATCH],
  );
  return rows.length;
}

/** Time until the next gate opens or closes, at least 0; null when none will. */
export async function untilNextGateMs(db: Queryable): Promise<number | null> {
  const [row] = await db.query<{ ms: number | null }>(
    `select greatest(0, extract(epoch from min(open_until) - now()) * 1000)::float8 as ms
     from stack where gated and deleted_at is null and open_until < 'infinity'`,
  );
  return row?.ms ?? null;
}
