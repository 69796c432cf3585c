import { errorText } from '#lib/errors.ts';
import type { Resource } from '../kube/resource.ts';
import type { PlannedObject } from './plan.ts';
import type { ApplyRun } from './run.ts';

/** The resource of definitions. */
export const DEFINITIONS: Resource = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
  namespaced: false,
  verbs: ['get', 'list', 'watch', 'patch', 'delete'],
};

const ESTABLISH_TIMEOUT_MS = 30_000;
/** Established takes 42 to 102 ms on a quiet server (APPLY §3.2); asking in a tight loop slows that down. */
const ESTABLISH_POLL = { firstMs: 50, mostMs: 500 };
/** A definition that is established is found by discovery within moments. */
const DISCOVER_POLL_MS = 150;
const DISCOVER_TRIES = 20;
const DISCOVER_FAILURES = 3;

/** Whether an object is a CustomResourceDefinition. */
export function isDefinition({ group, kind }: Pick<PlannedObject, 'group' | 'kind'>): boolean {
  return group === DEFINITIONS.group && kind === DEFINITIONS.kind;
}

/**
 * Waits, at most 30 s, until the server serves the kind of a definition that was just applied; then it may be asked for in discovery.
 * Returns in words why it does not.
 */
export async function establish(run: ApplyRun, { name }: PlannedObject, signal: AbortSignal): Promise<string | undefined> {
  const problem = await waitEstablished(run, name, signal);
  if (problem !== undefined) return problem;
  run.freshGroups.add(name.slice(name.indexOf('.') + 1)); // a definition is named `<plural>.<group>`
  run.engine.kube.resources.invalidate();
  run.engine.kube.openapi.invalidate();
  return undefined;
}

async function waitEstablished({ engine, stop }: ApplyRun, name: string, signal: AbortSignal): Promise<string | undefined> {
  const { kube, clock } = engine;
  const until = clock.monotonic() + ESTABLISH_TIMEOUT_MS;
  let problem = 'the definition is not established yet';
  for (let waitMs = ESTABLISH_POLL.firstMs; clock.monotonic() < until && !stop.aborted; waitMs *= 2) {
    try {
      const live = await kube.limiter.run(() => kube.find({ resource: DEFINITIONS, name }, signal), 'high', signal);
      const { conditions = [] } = (live?.status ?? {}) as { readonly conditions?: readonly Condition[] };
      if (conditions.some(({ type, status }) => type === 'Established' && status === 'True')) return undefined;
      const refused = conditions.find(({ type, status }) => type === 'NamesAccepted' && status === 'False');
      if (refused) return refused.message ?? 'the names of the definition are not accepted';
    } catch (error) {
      signal.throwIfAborted();
      problem = errorText(error);
    }
    await clock.sleep(Math.min(waitMs, ESTABLISH_POLL.mostMs), signal);
  }
  return problem;
}

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly message?: string;
}

/** The resource of a kind whose definition was applied in this sync; in words why there is none. */
export async function lateResource(run: ApplyRun, object: PlannedObject, signal: AbortSignal): Promise<Resource | string> {
  const { engine, freshGroups } = run;
  for (let attempt = 0; ; attempt++) {
    try {
      const mapping = await engine.kube.resources.resourceFor(object.group, object.version, object.kind, signal);
      if (mapping.kind === 'found') return mapping.resource;
      if (!freshGroups.has(object.group) || attempt >= DISCOVER_TRIES) return 'the cluster does not know the kind';
    } catch (error) {
      signal.throwIfAborted();
      if (attempt >= DISCOVER_FAILURES) return errorText(error);
    }
    engine.kube.resources.invalidate();
    await engine.clock.sleep(DISCOVER_POLL_MS, signal);
  }
}
