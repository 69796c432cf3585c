import { errorText } from '#lib/errors.ts';
import { type Engine, forEachLimited } from '../engine.ts';
import { classify } from '../kube/errors.ts';
import { listableKinds } from '../kube/listable.ts';
import type { KubeObject } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import type { Guard } from './prune.ts';

/** Lists in flight. */
const PARALLEL = 8;
/** Objects of one kind looked at; a namespace with more of them that do not count is held all the same. */
const MAX_OBJECTS = 5000;

/** Objects every namespace has, by kind and name. */
const DEFAULTS: ReadonlySet<string> = new Set(['/ConfigMap/kube-root-ca.crt', '/ServiceAccount/default']);
/** Kinds that come and go with others. */
const TRACES: ReadonlySet<string> = new Set(['/Event', 'events.k8s.io/Event', '/Endpoints']);

/**
 * What is in a namespace that is not this stack's own, and would be deleted with it. `own` are the UIDs of the stack's objects, which
 * the inventory speaks for. Asks for the metadata of every kind that can be listed; what cannot be told holds the namespace.
 */
export async function holdsForeign(
  engine: Engine,
  namespace: string,
  own: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Guard | undefined> {
  const { resources, unknown } = listableKinds(await engine.kube.resources.all(signal));
  const [group] = unknown;
  if (group !== undefined) {
    return { reason: 'discovery', message: `what is in the namespace cannot be told: ${group} does not answer` };
  }
  let found: Guard | undefined;
  const kinds = resources.filter((resource) => resource.namespaced && !TRACES.has(`${resource.group}/${resource.kind}`));
  await forEachLimited(
    kinds,
    () => PARALLEL,
    async (resource) => {
      if (found) return;
      const guard = await findForeign(engine, resource, namespace, own, signal);
      found ??= guard;
    },
  );
  return found;
}

async function findForeign(
  { kube }: Engine,
  resource: Resource,
  namespace: string,
  own: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Guard | undefined> {
  const { group, kind } = resource;
  let seen = 0;
  try {
    for await (const { items } of kube.list({ resource, namespace, content: 'metadata' }, signal)) {
      const foreign = items.find((object) => counts(group, kind, object) && !own.has(object.metadata.uid));
      if (foreign)
        return { reason: 'foreign', message: `${kind} ${foreign.metadata.name} is in the namespace and not of this stack` };
      seen += items.length;
      if (seen > MAX_OBJECTS)
        return { reason: 'foreign', message: `more than ${MAX_OBJECTS} objects ${kind} are in the namespace` };
    }
  } catch (error) {
    signal.throwIfAborted();
    const reason = classify(error) === 'permission' ? 'forbidden' : 'discovery';
    return { reason, message: `whether any ${kind} is in the namespace cannot be told: ${errorText(error)}` };
  }
  return undefined;
}

/** What another object owns goes with its owner, which counts itself. */
function counts(group: string, kind: string, { metadata }: KubeObject): boolean {
  return (metadata.ownerReferences ?? []).length === 0 && !DEFAULTS.has(`${group}/${kind}/${metadata.name}`);
}
