import type { Resource } from './resource.ts';
import type { ServedResources } from './resources.ts';

/** Groups whose kinds are measurements and not stored objects: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`. */
const MEASUREMENTS = /(^|\.)metrics\.k8s\.io(\/|$)/;

/** Kinds of stored objects. */
export interface ListableKinds {
  /** Each kind once, in the server's preferred version. */
  readonly resources: readonly Resource[];
  /** Group-versions whose kinds cannot be told now. */
  readonly unknown: readonly string[];
}

/** The kinds whose stored objects can be listed, of everything the server serves. */
export function listableKinds({ resources, unknown }: ServedResources): ListableKinds {
  const kinds = new Map<string, Resource>();
  for (const resource of resources) {
    const key = `${resource.group}/${resource.kind}`;
    const lists = resource.verbs.includes('list') && !MEASUREMENTS.test(resource.group);
    if (lists && !kinds.has(key)) kinds.set(key, resource);
  }
  return { resources: [...kinds.values()], unknown: unknown.filter((name) => !MEASUREMENTS.test(name)) };
}
