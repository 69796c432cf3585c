import { isMapping, type ObjectKey, type Value, type ValueObject } from './object.ts';
import { compareQuantities, parseQuantity } from './quantity.ts';
import type { Tell } from './rules.ts';
import { jsonPointer } from './yaml-problems.ts';

/** The most that objects may ask for, as quantities. */
export interface Ceilings {
  /** Per container, by resource: `cpu`, `memory`, or any other. */
  readonly requests?: Readonly<Record<string, string | number>>;
  /** Per container; a container without a limit is above any. */
  readonly limits?: Readonly<Record<string, string | number>>;
  /** Replicas of one workload, also as the most of an autoscaler. */
  readonly replicas?: number;
  /** Of one volume claim. */
  readonly storage?: string | number;
}

/** What is asked of workloads. */
interface WorkloadRules {
  readonly ceilings: Ceilings | undefined;
  /** Prefixes of image names, whole path segments. */
  readonly images: readonly string[] | undefined;
}

/** Kinds of Kubernetes that hold a pod, and where. */
const POD_SPECS: Readonly<Record<string, readonly string[]>> = {
  '/Pod': ['spec'],
  '/PodTemplate': ['template', 'spec'],
  '/ReplicationController': ['spec', 'template', 'spec'],
  'apps/Deployment': ['spec', 'template', 'spec'],
  'apps/StatefulSet': ['spec', 'template', 'spec'],
  'apps/DaemonSet': ['spec', 'template', 'spec'],
  'apps/ReplicaSet': ['spec', 'template', 'spec'],
  'batch/Job': ['spec', 'template', 'spec'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template', 'spec'],
};

const CONTAINERS = ['initContainers', 'containers', 'ephemeralContainers'];

/** Fields that say how many pods there may be. */
const REPLICAS: Readonly<Record<string, string>> = {
  '/ReplicationController': 'replicas',
  'apps/Deployment': 'replicas',
  'apps/StatefulSet': 'replicas',
  'apps/ReplicaSet': 'replicas',
  'autoscaling/HorizontalPodAutoscaler': 'maxReplicas',
};

/** Judges what an object runs and asks for. Kinds of others (custom resources that hold pods) are left to expressions. */
export function checkWorkload(key: ObjectKey, object: ValueObject, rules: WorkloadRules, tell: Tell): void {
  const kind = `${key.group}/${key.kind}`;
  const spec = mapping(object.spec);
  const { ceilings = {} } = rules;
  const replicas = REPLICAS[kind];
  if (replicas !== undefined) ceiling(spec[replicas], ceilings.replicas, jsonPointer('spec', replicas), 'replicas', tell);
  for (const [path, claim] of claims(kind, spec)) {
    const requests = mapping(mapping(claim.resources).requests);
    ceiling(requests.storage, ceilings.storage, `${path}/resources/requests/storage`, 'the storage of one claim', tell);
  }
  const place = POD_SPECS[kind];
  if (!place) return;
  const pod = place.reduce<ValueObject>((value, field) => mapping(value[field]), object);
  for (const field of CONTAINERS) {
    for (const [index, container] of list(pod[field]).entries()) {
      const path = jsonPointer(...place, field, index);
      checkImage(container.image, `${path}/image`, rules.images, tell);
      if (field !== 'ephemeralContainers') checkResources(mapping(container.resources), `${path}/resources`, ceilings, tell);
    }
  }
  for (const [index, volume] of list(pod.volumes).entries()) {
    const { reference } = mapping(volume.image);
    checkImage(reference, jsonPointer(...place, 'volumes', index, 'image', 'reference'), rules.images, tell);
  }
}

/** Specs of volume claims in an object. */
function claims(kind: string, spec: ValueObject): [path: string, spec: ValueObject][] {
  if (kind === '/PersistentVolumeClaim') return [['/spec', spec]];
  if (kind !== 'apps/StatefulSet') return [];
  return list(spec.volumeClaimTemplates).map((claim, index) => [
    jsonPointer('spec', 'volumeClaimTemplates', index, 'spec'),
    mapping(claim.spec),
  ]);
}

function checkResources(resources: ValueObject, path: string, { requests = {}, limits = {} }: Ceilings, tell: Tell): void {
  const limited = mapping(resources.limits);
  // Kubernetes takes the limit for the request where there is none.
  const requested = { ...limited, ...mapping(resources.requests) };
  for (const [resource, most] of Object.entries(requests)) {
    ceiling(
      requested[resource],
      most,
      path + jsonPointer('requests', resource),
      `the ${resource} request of one container`,
      tell,
    );
  }
  for (const [resource, most] of Object.entries(limits)) {
    const what = `the ${resource} limit of one container`;
    const at = path + jsonPointer('limits', resource);
    if (limited[resource] === undefined || limited[resource] === null) {
      tell('above_ceiling', at, `${what} is not set; it must be at most ${most}`);
    } else ceiling(limited[resource], most, at, what, tell);
  }
}

/** A value that is no quantity is left to the schema. */
function ceiling(value: Value | undefined, most: string | number | undefined, path: string, what: string, tell: Tell): void {
  const quantity = parseQuantity(value);
  const limit = parseQuantity(most);
  if (quantity && limit && compareQuantities(quantity, limit) > 0) {
    tell('above_ceiling', path, `${what} must be at most ${most}`);
  }
}

function checkImage(image: Value | undefined, path: string, allowed: readonly string[] | undefined, tell: Tell): void {
  if (allowed === undefined || typeof image !== 'string') return;
  const name = fullName(image);
  if (allowed.some((prefix) => isWithin(name, fullPrefix(prefix)))) return;
  tell('forbidden_image', path, `the image must be one of ${allowed.join(', ')}`);
}

/** Whether a prefix ends at the end of a part of the name: `example.com/team` is not a prefix of `example.com/team-b/web`. */
function isWithin(name: string, prefix: string): boolean {
  return name.startsWith(prefix) && (name.length === prefix.length || '/:@'.includes(name.charAt(prefix.length)));
}

/** A host of a registry, when it stands alone as a prefix. */
const HOST = /^(localhost|[^:/]+\.[^:/]+)(:\d+)?$/;

/** A prefix as a part of full names. */
function fullPrefix(prefix: string): string {
  return (HOST.test(prefix) ? prefix : fullName(prefix)).replace(/\/$/, '');
}

/** The name with what container runtimes add: a first part that is no host is below docker.io, and alone it is in its library. */
function fullName(reference: string): string {
  const slash = reference.indexOf('/');
  if (slash === -1) return `docker.io/library/${reference}`;
  const first = reference.slice(0, slash);
  if (first === 'index.docker.io') return `docker.io${reference.slice(slash)}`;
  return /[.:]|^localhost$/.test(first) ? reference : `docker.io/${reference}`;
}

function mapping(value: Value | undefined): ValueObject {
  return isMapping(value) ? value : {};
}

function list(value: Value | undefined): ValueObject[] {
  return Array.isArray(value) ? value.map(mapping) : [];
}
