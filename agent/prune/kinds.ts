import { errorText } from '#lib/errors.ts';
import type { Engine } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Resource } from '../kube/resource.ts';
import type { Guard } from './prune.ts';

const DEFINITIONS: Resource = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
  namespaced: false,
  verbs: ['get', 'delete'],
};

/** What intercepts requests: it goes before what serves it, or the requests in between fail. */
const INTERCEPTORS: ReadonlySet<string> = new Set([
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration',
  'admissionregistration.k8s.io/MutatingWebhookConfiguration',
  'apiregistration.k8s.io/APIService',
]);

/** The resource to delete through; `gone` when the kind was positively removed with all its objects; else why it cannot be told. */
export async function resourceOf(
  engine: Engine,
  entry: InventoryEntry,
  signal: AbortSignal,
): Promise<Resource | 'gone' | string> {
  const exact = await engine.kube.resources.resourceFor(entry.group, entry.version, entry.kind, signal);
  if (exact.kind === 'found') return exact.resource;
  const other = await engine.kube.resources.preferred(entry.group, entry.kind, signal);
  if (other.kind === 'found') return other.resource;
  if (other.kind === 'unknown') return other.reason;
  // Discovery alone is no proof: an API service may have been taken away while its objects live on.
  const definition = await engine.kube.findMetadata({ resource: DEFINITIONS, name: `${entry.plural}.${entry.group}` }, signal);
  return definition ? 'the kind is defined but not served' : 'gone';
}

/** Whether an object is the definition of a kind, with everything of that kind. */
export function isDefinition({ group, kind }: Pick<InventoryEntry, 'group' | 'kind'>): boolean {
  return group === DEFINITIONS.group && kind === DEFINITIONS.kind;
}

/** Which object of a definition is left: it would be deleted with it. */
export async function hasInstances(engine: Engine, entry: InventoryEntry, signal: AbortSignal): Promise<Guard | undefined> {
  const dot = entry.name.indexOf('.');
  const [plural, group] = [entry.name.slice(0, dot), entry.name.slice(dot + 1)];
  const { resources, unknown } = await engine.kube.resources.all(signal);
  const resource = resources.find((candidate) => candidate.group === group && candidate.plural === plural);
  if (!resource) {
    const hidden = unknown.find((version) => version.startsWith(`${group}/`));
    if (hidden === undefined) return undefined;
    return {
      reason: 'discovery',
      message: `whether any object of the kind exists cannot be told: ${hidden} cannot be discovered`,
    };
  }
  const reason = 'instances';
  try {
    for await (const { items } of engine.kube.list({ resource, content: 'metadata', limit: 1 }, signal)) {
      const [first] = items;
      if (!first) continue;
      const { namespace, name } = first.metadata;
      return { reason, message: `${resource.kind} ${namespace === undefined ? '' : `${namespace}/`}${name} still exists` };
    }
  } catch (error) {
    signal.throwIfAborted();
    return { reason, message: `whether any ${resource.kind} exists cannot be told: ${errorText(error)}` };
  }
  return undefined;
}

/**
 * Removals in three parts, each to be removed before the next: objects of the API services that go, then those services and webhook
 * configurations, then the rest with their backends.
 */
export function interceptorsFirst(entries: readonly InventoryEntry[]): readonly (readonly InventoryEntry[])[] {
  const interceptors = entries.filter(isInterceptor);
  // An APIService is named `<version>.<group>`.
  const groups = new Set(
    interceptors.filter(({ kind }) => kind === 'APIService').map(({ name }) => name.slice(name.indexOf('.') + 1)),
  );
  const served = entries.filter((entry) => !isInterceptor(entry) && groups.has(entry.group));
  return [served, interceptors, entries.filter((entry) => !isInterceptor(entry) && !groups.has(entry.group))];
}

function isInterceptor({ group, kind }: InventoryEntry): boolean {
  return INTERCEPTORS.has(`${group}/${kind}`);
}
