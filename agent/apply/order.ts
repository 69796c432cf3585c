import type { ObjectKey } from '#lib/object.ts';

/** Stands for all kinds that are not named: custom resources, and built-in ones nothing has to wait for. */
const OTHERS = '*';

/**
 * Kinds in the order they are sent when nothing else decides. What one kind may refer to comes in an earlier row, so no chain of references
 * leads back to where it began.
 */
const ROWS: readonly (readonly string[])[] = [
  ['/Namespace', 'apiextensions.k8s.io/CustomResourceDefinition'],
  [
    'scheduling.k8s.io/PriorityClass',
    'storage.k8s.io/StorageClass',
    'node.k8s.io/RuntimeClass',
    'networking.k8s.io/IngressClass',
  ],
  ['rbac.authorization.k8s.io/ClusterRole'],
  ['/ResourceQuota', '/LimitRange', 'networking.k8s.io/NetworkPolicy'],
  ['/ServiceAccount'],
  ['/ConfigMap', '/Secret'],
  ['/PersistentVolume'],
  ['/PersistentVolumeClaim'],
  ['rbac.authorization.k8s.io/Role'],
  ['rbac.authorization.k8s.io/ClusterRoleBinding', 'rbac.authorization.k8s.io/RoleBinding'],
  ['/Service', 'policy/PodDisruptionBudget'],
  ['apps/DaemonSet', 'apps/StatefulSet', 'apps/Deployment', 'apps/ReplicaSet', '/Pod', '/ReplicationController'],
  ['batch/Job', 'batch/CronJob'],
  [OTHERS],
  ['autoscaling/HorizontalPodAutoscaler', 'networking.k8s.io/Ingress'],
  [
    'admissionregistration.k8s.io/ValidatingWebhookConfiguration',
    'admissionregistration.k8s.io/MutatingWebhookConfiguration',
    'apiregistration.k8s.io/APIService',
  ],
];

const RANKS: ReadonlyMap<string, number> = new Map(ROWS.flatMap((kinds, rank) => kinds.map((kind) => [kind, rank] as const)));
const OTHERS_RANK = ROWS.findIndex(([kind]) => kind === OTHERS);

/** How many ranks there are. */
export const RANK_COUNT = ROWS.length;
/** Rank of what intercepts requests: it must not do so before its backend is there, so it comes after everything else of its wave. */
export const LAST_RANK = ROWS.length - 1;

/** Place of a kind in the order, from 0. */
export function rankOf({ group, kind }: Pick<ObjectKey, 'group' | 'kind'>): number {
  return RANKS.get(`${group}/${kind}`) ?? OTHERS_RANK;
}

/** Objects that may be deleted at the same time. */
export interface Batch<Item> {
  readonly items: readonly Item[];
}

/**
 * Items in the order to delete them: later waves first, and in a wave the later kinds first, so that nothing goes before what refers to it:
 * custom resources before their definitions, members before namespaces.
 */
export function inReverse<Item extends Pick<ObjectKey, 'group' | 'kind'> & { readonly wave: number }>(
  items: Iterable<Item>,
): Batch<Item>[] {
  const placed = [...items].map((item) => ({ item, rank: rankOf(item) }));
  placed.sort((a, b) => b.item.wave - a.item.wave || b.rank - a.rank);
  const batches: { readonly wave: number; readonly rank: number; readonly items: Item[] }[] = [];
  for (const { item, rank } of placed) {
    const last = batches.at(-1);
    if (last?.wave === item.wave && last.rank === rank) last.items.push(item);
    else batches.push({ wave: item.wave, rank, items: [item] });
  }
  return batches;
}
