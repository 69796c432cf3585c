import { errorText } from '#lib/errors.ts';
import { keyString } from '#lib/object.ts';
import { forEachLimited } from './apply-engine.ts';
import { applyOne, dryRunOne } from './apply-object.ts';
import { objectStatus, statusText } from './apply-report.ts';
import { type ApplyRun, type Failure, isUnreachable, type Outcome } from './apply-run.ts';
import type { Resource } from './kube/resource.ts';
import { inOrder } from './order.ts';
import type { PlannedObject } from './plan.ts';

const DEFINITIONS: Resource = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
  namespaced: false,
  verbs: ['get'],
};

const ESTABLISH_TIMEOUT_MS = 30_000;
const ESTABLISH_POLL_MS = 50;

/** Outcomes by key (`keyString`). */
export type Outcomes = Map<string, Outcome>;

/** Dry-runs updates of live objects, so that a change the server would refuse stops everything before anything is written. */
export async function preflight(run: ApplyRun, objects: readonly PlannedObject[], signal: AbortSignal): Promise<Failure[]> {
  const refused: Failure[] = [];
  await forEachLimited(objects, run.engine.share, async (object) => {
    if (!object.resource || run.stop.aborted) return;
    const outcome = await dryRunOne(run, object, object.resource, signal);
    if (outcome) refused.push(outcome);
  });
  return refused;
}

/**
 * Applies objects in dependency order, many at once. A failure blocks only what depends on it: members of a namespace, resources of a
 * definition, later waves. Every object gets an outcome.
 */
export async function applyAll(run: ApplyRun, objects: readonly PlannedObject[], signal: AbortSignal): Promise<Outcomes> {
  const outcomes: Outcomes = new Map();
  const state: State = { blockers: new Map(), failedWave: undefined };
  for (const { wave, stage, items } of inOrder(objects)) {
    await forEachLimited(items, run.engine.share, async (object) => {
      const outcome = await step(run, state, object, signal);
      outcomes.set(keyString(object), outcome);
      note(state, object, outcome);
    });
    if (stage === 0) await establish(run, state, items, outcomes, signal);
    if (state.failedWave === undefined && items.some((item) => outcomes.get(keyString(item))?.kind === 'failed')) {
      state.failedWave = wave;
    }
  }
  return outcomes;
}

interface State {
  /** What failed, in words, by what depends on it: `namespace/<name>` or `group/<API group>`. */
  readonly blockers: Map<string, string>;
  failedWave: number | undefined;
}

async function step(run: ApplyRun, state: State, object: PlannedObject, signal: AbortSignal): Promise<Outcome> {
  if (run.stop.aborted || isUnreachable(run)) return { kind: 'skipped' };
  const terminating = run.terminating.get(keyString(object));
  if (terminating) return { kind: 'failed', class: 'dependency', status: terminating };
  const blocker =
    (object.namespaced ? state.blockers.get(`namespace/${object.namespace}`) : undefined) ??
    state.blockers.get(`group/${object.group}`) ??
    (state.failedWave !== undefined && object.wave > state.failedWave ? `wave ${state.failedWave} has failed` : undefined);
  if (blocker !== undefined) return blocked(object, 'blocked', blocker);
  const resource = object.resource ?? (await lateResource(run, object, signal));
  if (typeof resource === 'string') return blocked(object, 'unknown_kind', resource);
  return await applyOne(run, object, resource, signal);
}

/** The resource of a kind whose definition was applied in this sync; in words why there is none. */
async function lateResource(run: ApplyRun, object: PlannedObject, signal: AbortSignal): Promise<Resource | string> {
  const { engine, freshGroups } = run;
  for (let attempt = 0; ; attempt++) {
    try {
      const mapping = await engine.kube.resources.resourceFor(object.group, object.version, object.kind, signal);
      if (mapping.kind === 'found') return mapping.resource;
      if (!freshGroups.has(object.group) || attempt >= 20) return 'the cluster does not know the kind';
    } catch (error) {
      signal.throwIfAborted();
      if (attempt >= 3) return errorText(error);
    }
    engine.kube.resources.invalidate();
    await engine.clock.sleep(ESTABLISH_POLL_MS * 3, signal);
  }
}

function note(state: State, object: PlannedObject, outcome: Outcome): void {
  if (outcome.kind !== 'failed') return;
  const { status } = outcome;
  if (object.kind === 'Namespace' && object.group === '') state.blockers.set(`namespace/${object.name}`, statusText(status));
  if (object.kind === DEFINITIONS.kind) state.blockers.set(`group/${groupOf(object)}`, statusText(status));
}

/** Waits until the definitions of this batch are served. One that is not in time counts as failed. */
async function establish(
  run: ApplyRun,
  state: State,
  items: readonly PlannedObject[],
  outcomes: Outcomes,
  signal: AbortSignal,
): Promise<void> {
  const definitions = items.filter((object) => {
    const outcome = outcomes.get(keyString(object));
    return object.kind === DEFINITIONS.kind && outcome?.kind === 'applied' && outcome.result !== 'unchanged';
  });
  if (definitions.length === 0) return;
  await Promise.all(
    definitions.map(async (object) => {
      const problem = await waitEstablished(run, object.name, signal);
      if (problem === undefined) {
        run.freshGroups.add(groupOf(object));
        return;
      }
      const status = objectStatus(object, 'retrying', 'not_established', problem);
      outcomes.set(keyString(object), { kind: 'failed', class: 'dependency', status });
      state.blockers.set(`group/${groupOf(object)}`, statusText(status));
    }),
  );
  run.engine.kube.resources.invalidate();
  run.engine.kube.openapi.invalidate();
  run.engine.kindsChanged();
}

async function waitEstablished({ engine, stop }: ApplyRun, name: string, signal: AbortSignal): Promise<string | undefined> {
  const { kube, clock } = engine;
  const until = clock.monotonic() + ESTABLISH_TIMEOUT_MS;
  let problem = 'the definition is not established yet';
  while (clock.monotonic() < until && !stop.aborted) {
    try {
      const live = await kube.find({ resource: DEFINITIONS, name }, signal);
      const { conditions = [] } = (live?.status ?? {}) as { readonly conditions?: readonly Condition[] };
      if (conditions.some(({ type, status }) => type === 'Established' && status === 'True')) return undefined;
      const refused = conditions.find(({ type, status }) => type === 'NamesAccepted' && status === 'False');
      if (refused) return refused.message ?? 'the names of the definition are not accepted';
    } catch (error) {
      signal.throwIfAborted();
      problem = errorText(error);
    }
    await clock.sleep(ESTABLISH_POLL_MS, signal);
  }
  return problem;
}

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly message?: string;
}

/** A definition is named `<plural>.<group>`. */
function groupOf({ name }: PlannedObject): string {
  return name.slice(name.indexOf('.') + 1);
}

function blocked(object: PlannedObject, reason: string, message: string): Outcome {
  return { kind: 'failed', class: 'dependency', status: objectStatus(object, 'blocked', reason, message) };
}
