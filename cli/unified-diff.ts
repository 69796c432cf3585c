/** Lines of context around a change, as diff -u has by default. */
const CONTEXT = 3;
/** Beyond this many edits the rest is shown as removed and added as a whole: the search is quadratic in them. */
const MAX_EDITS = 2_000;

type Edit = { readonly kind: ' ' | '-' | '+'; readonly line: string };

/** The differences of two texts in the unified format, hunks only; empty when they are equal. */
export function unifiedDiff(before: string, after: string): string[] {
  if (before === after) return [];
  const edits = editScript(linesOf(before), linesOf(after));
  const lines: string[] = [];
  for (const { from, to } of hunks(edits)) {
    const counted = (kinds: string, upTo: number, start = 0) =>
      edits.slice(start, upTo).filter(({ kind }) => kinds.includes(kind)).length;
    const range = (kinds: string) => {
      const count = counted(kinds, to, from);
      const begin = counted(kinds, from) + (count === 0 ? 0 : 1);
      return count === 1 ? `${begin}` : `${begin},${count}`;
    };
    lines.push(`@@ -${range(' -')} +${range(' +')} @@`);
    for (const { kind, line } of edits.slice(from, to)) lines.push(kind + line);
  }
  return lines;
}

function linesOf(text: string): string[] {
  if (text === '') return [];
  return (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n');
}

/** Stretches of changes with their context; stretches that touch are one. */
function hunks(edits: readonly Edit[]): { from: number; to: number }[] {
  const found: { from: number; to: number }[] = [];
  for (const [at, { kind }] of edits.entries()) {
    if (kind === ' ') continue;
    const last = found.at(-1);
    const to = Math.min(edits.length, at + 1 + CONTEXT);
    if (last && at - CONTEXT <= last.to) last.to = to;
    else found.push({ from: Math.max(0, at - CONTEXT), to });
  }
  return found;
}

/** Shortest edit script between what is left after the common head and tail (Myers, "An O(ND) Difference Algorithm"). */
function editScript(before: readonly string[], after: readonly string[]): Edit[] {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head++;
  let tail = 0;
  while (tail < Math.min(before.length, after.length) - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const left = before.slice(head, before.length - tail);
  const right = after.slice(head, after.length - tail);
  const same = (line: string): Edit => ({ kind: ' ', line });
  return [...before.slice(0, head).map(same), ...middle(left, right), ...before.slice(before.length - tail).map(same)];
}

function middle(left: readonly string[], right: readonly string[]): Edit[] {
  const trace: Map<number, number>[] = [];
  let furthest = new Map<number, number>([[1, 0]]);
  for (let edits = 0; edits <= Math.min(left.length + right.length, MAX_EDITS); edits++) {
    trace.push(new Map(furthest));
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      const down = goesDown(furthest, diagonal, edits);
      let x = down ? (furthest.get(diagonal + 1) ?? 0) : (furthest.get(diagonal - 1) ?? 0) + 1;
      while (x < left.length && x - diagonal < right.length && left[x] === right[x - diagonal]) x++;
      furthest.set(diagonal, x);
      if (x >= left.length && x - diagonal >= right.length) return walkBack(trace, left, right);
    }
    furthest = new Map(furthest);
  }
  return [...left.map((line) => ({ kind: '-', line }) as const), ...right.map((line) => ({ kind: '+', line }) as const)];
}

function goesDown(furthest: ReadonlyMap<number, number>, diagonal: number, edits: number): boolean {
  if (diagonal === -edits) return true;
  return diagonal !== edits && (furthest.get(diagonal - 1) ?? 0) < (furthest.get(diagonal + 1) ?? 0);
}

function walkBack(trace: readonly ReadonlyMap<number, number>[], left: readonly string[], right: readonly string[]): Edit[] {
  const script: Edit[] = [];
  let x = left.length;
  let y = right.length;
  for (let edits = trace.length - 1; edits >= 0; edits--) {
    const furthest = trace[edits] ?? new Map<number, number>();
    const diagonal = x - y;
    const previous = goesDown(furthest, diagonal, edits) ? diagonal + 1 : diagonal - 1;
    const fromX = edits === 0 ? 0 : (furthest.get(previous) ?? 0);
    const fromY = edits === 0 ? 0 : fromX - previous;
    while (x > fromX && y > fromY) {
      script.push({ kind: ' ', line: left[--x] ?? '' });
      y--;
    }
    if (edits === 0) break;
    if (x > fromX) script.push({ kind: '-', line: left[--x] ?? '' });
    else script.push({ kind: '+', line: right[--y] ?? '' });
  }
  return script.reverse();
}
