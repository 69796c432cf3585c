/**
 * A set of whole numbers as sorted boundaries: members are the numbers from the first boundary (inclusive) to the second (exclusive), from
 * the third to the fourth, and so on. Boundaries rise strictly, so equal sets are equal lists.
 */
export type Intervals<T extends number | bigint> = readonly T[];

/** Members of either set. */
export function union<T extends number | bigint>(a: Intervals<T>, b: Intervals<T>): Intervals<T> {
  if (a.length === 0) return b;
  if (b.length === 0) return a;
  return combine(a, b, (inA, inB) => inA || inB);
}

/** Members of both sets. */
export function intersect<T extends number | bigint>(a: Intervals<T>, b: Intervals<T>): Intervals<T> {
  return combine(a, b, (inA, inB) => inA && inB);
}

/** Members of the first set that are not in the second. */
export function subtract<T extends number | bigint>(a: Intervals<T>, b: Intervals<T>): Intervals<T> {
  if (a.length === 0 || b.length === 0) return a;
  return combine(a, b, (inA, inB) => inA && !inB);
}

/** Whether the number is a member. */
export function contains<T extends number | bigint>(set: Intervals<T>, member: T): boolean {
  let low = 0;
  let high = set.length; // boundaries before `low` are at or below the member, those from `high` on are above it
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((set[middle] as T) <= member) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}

/** Whether every member of the second set is in the first. */
export function covers<T extends number | bigint>(set: Intervals<T>, part: Intervals<T>): boolean {
  return subtract(part, set).length === 0;
}

/** The intervals one by one, the second number exclusive. */
export function* pairs<T extends number | bigint>(set: Intervals<T>): Generator<readonly [from: T, to: T]> {
  for (let at = 0; at + 1 < set.length; at += 2) yield [set[at] as T, set[at + 1] as T];
}

/** One sweep over the boundaries of both sets; a boundary of the result is where `keep` changes its mind. */
function combine<T extends number | bigint>(
  a: Intervals<T>,
  b: Intervals<T>,
  keep: (inA: boolean, inB: boolean) => boolean,
): Intervals<T> {
  const result: T[] = [];
  let [atA, atB] = [0, 0];
  let inside = false;
  while (atA < a.length || atB < b.length) {
    const [nextA, nextB] = [a[atA], b[atB]];
    const at = (nextB === undefined || (nextA !== undefined && nextA <= nextB) ? nextA : nextB) as T;
    if (nextA === at) atA++;
    if (nextB === at) atB++;
    const kept = keep(atA % 2 === 1, atB % 2 === 1);
    if (kept !== inside) result.push(at);
    inside = kept;
  }
  return result;
}
