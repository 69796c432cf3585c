import type { Queryable } from '../database.ts';
import { type Clause, EVERY, type Term } from './selector.ts';

/** Replaces the selector of a stack: its bytes and its terms; no clauses take it away. The stack's row must be locked. */
export async function replaceSelector(
  tx: Queryable,
  stackId: string,
  bytes: Uint8Array | null,
  clauses: readonly Clause[],
): Promise<void> {
  await tx.query('update stack set selector = $2, version = version + 1, updated_at = now() where id = $1', [stackId, bytes]);
  await tx.query('delete from stack_selector_term where stack_id = $1', [stackId]);
  const rows = clauses.flatMap((terms, clause) => rowsOf(terms).map((row) => ({ ...row, clause })));
  if (rows.length === 0) return;
  await tx.query(
    `insert into stack_selector_term (stack_id, clause, bit, wanted, source, key, operator, operands)
     select $1, t.clause, t.bit, t.wanted, t.source, t.key, t.operator, t.operands
     from jsonb_to_recordset($2::jsonb) t (clause smallint, bit bigint, wanted bigint, source text, key text, operator text, operands text[])`,
    [stackId, JSON.stringify(rows)],
  );
}

/** A clause that wants nothing to be there looks at every agent. Bits are texts: JSON numbers end at 53 bits. */
function rowsOf(terms: Clause): (Term & { readonly bit: string; readonly wanted: string })[] {
  const wants = ({ operator }: Term) => operator !== 'not_in' && operator !== 'does_not_exist';
  const all = terms.some(wants) ? terms : [...terms, EVERY];
  const bits = all.map((term, at) => ({ term, bit: 1n << BigInt(at) }));
  const wanted = bits.reduce((sum, { term, bit }) => (wants(term) ? sum | bit : sum), 0n);
  return bits.map(({ term, bit }) => ({ ...term, bit: String(bit), wanted: String(wanted) }));
}
