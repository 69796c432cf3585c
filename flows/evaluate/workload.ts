import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { type AddressSet, addressesOf, parseAddress } from '#flows/sets/addresses.ts';
import { union } from '#flows/sets/intervals.ts';
import type { Value } from '#lib/object.ts';
import type { Labels } from './label-selector.ts';
import { decode, type ReportField, type Shape } from './shape.ts';

/** Kinds that stand for pods, and where their pod template is. */
const TEMPLATE_PATHS: Readonly<Record<string, readonly string[]>> = {
  'apps/Deployment': ['spec', 'template'],
  'apps/StatefulSet': ['spec', 'template'],
  'apps/DaemonSet': ['spec', 'template'],
  'apps/ReplicaSet': ['spec', 'template'],
  'batch/Job': ['spec', 'template'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template'],
  '/ReplicationController': ['spec', 'template'],
  '/Pod': [],
};

/** A port that a container declares. */
export interface ContainerPort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
}

/** What the network sees of a pod, or of the pods of a workload. */
export interface PodNetwork {
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
  readonly hostNetwork: boolean;
  readonly nodeName: string;
  /** Of `status`; empty when not known, as always for a workload. */
  readonly addresses: AddressSet;
}

const CONTAINERS: Shape = {
  listOf: {
    some: {
      restartPolicy: 'text',
      ports: { listOf: { some: { name: 'text', containerPort: 'int32', protocol: 'text' } } },
    },
  },
};

const POD: Shape = {
  some: {
    metadata: { some: { labels: { mapOf: 'text' } } },
    spec: { some: { hostNetwork: 'boolean', nodeName: 'text', containers: CONTAINERS, initContainers: CONTAINERS } },
    status: { some: { podIP: 'text', podIPs: { listOf: { some: { ip: 'text' } } }, hostIP: 'text' } },
  },
};

interface DecodedPod {
  readonly metadata?: { readonly labels?: Labels };
  readonly spec?: {
    readonly hostNetwork?: boolean;
    readonly nodeName?: string;
    readonly containers?: readonly Container[];
    readonly initContainers?: readonly Container[];
  };
  readonly status?: { readonly podIP?: string; readonly podIPs?: readonly { readonly ip?: string }[]; readonly hostIP?: string };
}

interface Container {
  readonly restartPolicy?: string;
  readonly ports?: readonly { readonly name?: string; readonly containerPort?: number; readonly protocol?: Protocol }[];
}

/** Whether objects of the kind are pods or stand for pods. `kind` is `group/Kind`. */
export function isWorkload(kind: string): boolean {
  return Object.hasOwn(TEMPLATE_PATHS, kind);
}

/** What the network sees of the pods of an object for which `isWorkload` holds. Reports fields that cannot be read. */
export function readPod(kind: string, name: string, value: Value, report: ReportField): PodNetwork {
  const path = TEMPLATE_PATHS[kind] ?? [];
  const shape = path.reduceRight<Shape>((inner, field) => ({ some: { [field]: inner } }), POD);
  let decoded = decode(value, shape, '', report) as unknown;
  for (const field of path) decoded = (decoded as Record<string, unknown> | undefined)?.[field];
  const { metadata, spec, status } = (decoded ?? {}) as DecodedPod;
  // labels that the Job controller gives its pods; those of other controllers depend on what only a live object has
  const given = kind === 'batch/Job' ? { 'batch.kubernetes.io/job-name': name, 'job-name': name } : {};
  const texts = [status?.podIP ?? '', ...(status?.podIPs ?? []).map(({ ip = '' }) => ip)];
  if (spec?.hostNetwork === true) texts.push(status?.hostIP ?? '');
  const prefix = path.map((field) => `/${field}`).join('');
  return {
    labels: { ...given, ...metadata?.labels },
    ports: containerPorts(spec, `${prefix}/spec`, report),
    hostNetwork: spec?.hostNetwork === true,
    nodeName: spec?.nodeName ?? '',
    addresses: readAddresses(texts, (text) => report('/status', `${JSON.stringify(text)} is no IP address`)),
  };
}

/** The set of the addresses that are not ''. */
export function readAddresses(texts: readonly string[], refuse: (text: string) => void): AddressSet {
  let set: AddressSet = [];
  for (const text of texts.filter((each) => each !== '')) {
    if (parseAddress(text) === undefined) refuse(text);
    else set = union(set, addressesOf(text));
  }
  return set;
}

/** Ports of containers and of sidecars, which are init containers that are restarted always. */
function containerPorts(spec: DecodedPod['spec'], path: string, report: ReportField): ContainerPort[] {
  const sidecars = (spec?.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  return [...(spec?.containers ?? []), ...sidecars].flatMap(({ ports = [] }) =>
    ports.flatMap(({ name = '', protocol = 'TCP', containerPort = 0 }) => {
      if (PROTOCOLS.includes(protocol)) return [{ name, protocol, port: containerPort }];
      report(`${path}/containers`, `the protocol of a container port must be ${PROTOCOLS.join(', ')}`);
      return [];
    }),
  );
}
