import type { ObjectKey } from '#lib/object.ts';

/**
 * Stages of one wave. A stage begins when the one before has ended; within a stage objects are sent in the order of `rank`, many at once.
 * 0: what makes kinds and namespaces exist; 1: what workloads refer to; 2: workloads, custom resources, everything else;
 * 3: what intercepts requests and must not do so before its backend is there.
 */
export type Stage = 0 | 1 | 2 | 3;

/** Built-in kinds in the order they are sent. What is not named comes with the custom resources, after the workloads. */
const ORDER: readonly (readonly [Stage, ...string[]])[] = [
  [0, '/Namespace', 'apiextensions.k8s.io/CustomResourceDefinition'],
  [
    1,
    'scheduling.k8s.io/PriorityClass',
    'storage.k8s.io/StorageClass',
    'node.k8s.io/RuntimeClass',
    'networking.k8s.io/IngressClass',
  ],
  [1, 'rbac.authorization.k8s.io/ClusterRole'],
  [1, '/ResourceQuota', '/LimitRange', 'networking.k8s.io/NetworkPolicy'],
  [1, '/ServiceAccount'],
  [1, '/ConfigMap', '/Secret'],
  [1, '/PersistentVolume'],
  [1, '/PersistentVolumeClaim'],
  [1, 'rbac.authorization.k8s.io/Role'],
  [1, 'rbac.authorization.k8s.io/ClusterRoleBinding', 'rbac.authorization.k8s.io/RoleBinding'],
  [1, '/Service', 'policy/PodDisruptionBudget'],
  [2, 'apps/DaemonSet', 'apps/StatefulSet', 'apps/Deployment', 'apps/ReplicaSet', '/Pod', '/ReplicationController'],
  [2, 'batch/Job', 'batch/CronJob'],
  [2, 'autoscaling/HorizontalPodAutoscaler', 'networking.k8s.io/Ingress'],
];

const LAST: readonly string[] = [
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration',
  'admissionregistration.k8s.io/MutatingWebhookConfiguration',
  'apiregistration.k8s.io/APIService',
];

const PLACES: ReadonlyMap<string, readonly [Stage, number]> = new Map([
  ...ORDER.flatMap(([stage, ...kinds], rank) => kinds.map((kind) => [kind, [stage, rank] as const] as const)),
  ...LAST.map((kind) => [kind, [3, ORDER.length + 1] as const] as const),
]);

/** Stage and rank of a kind. */
function placeOf({ group, kind }: Pick<ObjectKey, 'group' | 'kind'>): readonly [stage: Stage, rank: number] {
  return PLACES.get(`${group}/${kind}`) ?? [2, ORDER.length];
}

/** Objects that are sent together. */
export interface Batch<Item> {
  readonly wave: number;
  readonly stage: Stage;
  readonly items: readonly Item[];
}

/** Items in the order to apply them: by wave, stage, rank; those of equal rank stay in the order given. */
export function inOrder<Item extends Pick<ObjectKey, 'group' | 'kind'> & { readonly wave: number }>(
  items: Iterable<Item>,
): Batch<Item>[] {
  const placed = [...items].map((item) => ({ item, place: placeOf(item) }));
  placed.sort((a, b) => a.item.wave - b.item.wave || a.place[0] - b.place[0] || a.place[1] - b.place[1]);
  const batches: { wave: number; stage: Stage; items: Item[] }[] = [];
  for (const { item, place } of placed) {
    const last = batches.at(-1);
    if (last && last.wave === item.wave && last.stage === place[0]) last.items.push(item);
    else batches.push({ wave: item.wave, stage: place[0], items: [item] });
  }
  return batches;
}

/** Items in the order to delete them: the reverse, custom resources before their definitions and members before namespaces. */
export function inReverse<Item extends Pick<ObjectKey, 'group' | 'kind'> & { readonly wave: number }>(
  items: Iterable<Item>,
): Batch<Item>[] {
  return inOrder(items)
    .reverse()
    .map((batch) => ({ ...batch, items: batch.items.toReversed() }));
}
