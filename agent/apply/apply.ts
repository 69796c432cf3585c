import { establish, isDefinition, lateResource } from './definitions.ts';
import { type Node, wavesOf } from './graph.ts';
import { runStep } from './graph-run.ts';
import { applyOne } from './object.ts';
import type { PlannedObject } from './plan.ts';
import { objectStatus, statusText } from './report.ts';
import { type ApplyRun, type Failure, isUnreachable, type Outcome } from './run.ts';

/** Outcomes by key (`keyString`). */
export type Outcomes = Map<string, Outcome>;

/** Resolves when a wave may begin, with the objects of earlier waves (by `keyString`) that are not ready though they had their time. */
export type WaveGate = (wave: number, signal: AbortSignal) => Promise<ReadonlyMap<string, Failure>>;

/** Reasons that hold for everything in a namespace, so the rest of it is not tried. */
const CLOSED: ReadonlySet<string> = new Set(['namespace_terminating', 'namespace_not_found']);

/**
 * Applies objects as the graph of what they need allows, many at once, wave by wave. A failure blocks only what needs the object, and later
 * waves. Every object gets an outcome; so does an object of an earlier wave that is not ready in time.
 */
export async function applyAll(
  run: ApplyRun,
  objects: readonly PlannedObject[],
  gate: WaveGate,
  signal: AbortSignal,
): Promise<Outcomes> {
  const outcomes: Outcomes = new Map();
  const closed = new Map<string, Failure>();
  let barrier: string | undefined;
  for (const { wave, steps } of wavesOf(objects)) {
    const why = barrier ?? (await unready(wave));
    for (const nodes of steps) {
      await runStep(nodes, run.engine.share, async (node, leave) => {
        const outcome =
          why === undefined ? await applyNode(run, { outcomes, closed }, node, leave, signal) : blocked(node.item, why);
        outcomes.set(node.key, outcome);
      });
    }
    const failed = steps.flat().some(({ key }) => outcomes.get(key)?.kind !== 'applied');
    barrier = why ?? (failed ? `wave ${wave} has failed` : undefined);
  }
  return outcomes;

  async function unready(wave: number): Promise<string | undefined> {
    const failures = await gate(wave, signal);
    for (const [key, failure] of failures) outcomes.set(key, failure);
    const [first] = failures.values();
    return first && `wave ${wave} needs ${statusText(first.status)}`;
  }
}

interface State {
  readonly outcomes: Outcomes;
  /** By name of the namespace, what the first object in it was told. */
  readonly closed: Map<string, Failure>;
}

async function applyNode(
  run: ApplyRun,
  state: State,
  { item: object, key, needs }: Node<PlannedObject>,
  leave: () => void,
  signal: AbortSignal,
): Promise<Outcome> {
  if (run.stop.aborted || isUnreachable(run)) return { kind: 'skipped' };
  const terminating = run.terminating.get(key);
  if (terminating) return { kind: 'failed', class: 'dependency', status: terminating };
  for (const need of needs) {
    const outcome = state.outcomes.get(need.key);
    if (outcome?.kind === 'skipped') return outcome;
    if (outcome?.kind === 'failed') return blocked(object, blockerText(outcome));
  }
  const closed = object.namespaced ? state.closed.get(object.namespace) : undefined;
  if (closed) {
    const { state: word, reason, message } = closed.status;
    return { ...closed, status: objectStatus(object, word, reason, message) };
  }
  const resource = object.resource ?? (await lateResource(run, object, signal));
  if (typeof resource === 'string') return blocked(object, resource, 'unknown_kind');
  const outcome = await applyOne(run, object, resource, signal);
  if (outcome.kind === 'failed' && CLOSED.has(outcome.status.reason)) state.closed.set(object.namespace, outcome);
  if (outcome.kind !== 'applied' || outcome.result === 'unchanged' || !isDefinition(object)) return outcome;
  leave();
  const problem = await establish(run, object, signal);
  if (problem === undefined) return outcome;
  return { kind: 'failed', class: 'dependency', status: objectStatus(object, 'retrying', 'not_established', problem) };
}

/** Names what failed first, also over several steps. */
function blockerText({ status }: Failure): string {
  return status.reason === BLOCKED ? status.message : `needs ${statusText(status)}`;
}

const BLOCKED = 'blocked';

function blocked(object: PlannedObject, message: string, reason = BLOCKED): Failure {
  return { kind: 'failed', class: 'dependency', status: objectStatus(object, 'blocked', reason, message) };
}
