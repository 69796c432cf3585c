/** Namespaces that exist before the soak and belong to no stack. */
export const NAMESPACES = ['soak-a', 'soak-b'] as const;

/** The custom resource of stack `alpha`. */
export const WIDGETS = { group: 'soak.example.com', plural: 'widgets', definition: 'widgets.soak.example.com' } as const;

/** Items of a stack that has all or few. The rest is more than 20, which the fuse holds (`agent/prune/prune.ts`). */
export const FEW = 3;

/** Kinds of the soak. */
export type Kind = keyof typeof API_PATHS;

/** An object that a stack may want. */
export interface Item {
  readonly kind: Kind;
  /** Undefined for cluster-scoped kinds. */
  readonly namespace: string | undefined;
  readonly name: string;
  /** The guard for which the agent must never delete it; undefined where it may. */
  readonly guard: 'mark never' | 'mark orphan' | 'approval' | 'fuse' | undefined;
}

/** A stack's name with all that it may want. The first item is wanted always, so that no version is empty. */
export interface StackItems {
  readonly name: string;
  readonly items: readonly Item[];
  /** Versions have all items or the first few, so that the fuse has something to hold. */
  readonly allOrFew: boolean;
  /** Every version approves all deletions. */
  readonly approves: boolean;
  /** Is deleted now and then, and made anew under its name. */
  readonly disposable: boolean;
}

/** API group path and plural. */
export const API_PATHS = {
  ConfigMap: ['api/v1', 'configmaps'],
  Secret: ['api/v1', 'secrets'],
  Service: ['api/v1', 'services'],
  ServiceAccount: ['api/v1', 'serviceaccounts'],
  Namespace: ['api/v1', 'namespaces'],
  Deployment: ['apis/apps/v1', 'deployments'],
  Role: ['apis/rbac.authorization.k8s.io/v1', 'roles'],
  RoleBinding: ['apis/rbac.authorization.k8s.io/v1', 'rolebindings'],
  CustomResourceDefinition: ['apis/apiextensions.k8s.io/v1', 'customresourcedefinitions'],
  Widget: [`apis/${WIDGETS.group}/v1`, WIDGETS.plural],
} as const;

/** Everything there is. */
export const STACKS: readonly StackItems[] = [
  stack('alpha', {}, [
    ...many('ConfigMap', 'soak-a', 'alpha', 6),
    ...many('Deployment', 'soak-a', 'alpha', 2),
    item('CustomResourceDefinition', undefined, WIDGETS.definition, 'approval'),
    ...many('Widget', 'soak-a', 'alpha', 3),
  ]),
  stack('beta', {}, [
    ...many('ConfigMap', 'soak-b', 'beta', 5),
    ...many('Secret', 'soak-b', 'beta', 2),
    item('Namespace', undefined, 'soak-beta', 'approval'),
    ...many('ConfigMap', 'soak-beta', 'beta-own', 2),
  ]),
  stack('gamma', { disposable: true }, [
    ...many('ConfigMap', 'soak-a', 'gamma', 4),
    ...many('Service', 'soak-a', 'gamma', 2),
    item('ConfigMap', 'soak-a', 'gamma-keep', 'mark never'),
    item('ConfigMap', 'soak-b', 'gamma-orphan', 'mark orphan'),
  ]),
  stack('delta', { approves: true }, [
    item('ConfigMap', 'soak-b', 'delta-0'),
    item('Namespace', undefined, 'soak-delta'),
    ...many('ConfigMap', 'soak-delta', 'delta-own', 3),
    item('ServiceAccount', 'soak-delta', 'delta'),
  ]),
  stack('epsilon', { disposable: true }, [
    ...many('ConfigMap', 'soak-b', 'epsilon', 3),
    item('ServiceAccount', 'soak-b', 'epsilon'),
    item('Role', 'soak-b', 'epsilon'),
    item('RoleBinding', 'soak-b', 'epsilon'),
  ]),
  stack(
    'mass',
    { allOrFew: true },
    many('ConfigMap', 'soak-a', 'mass', 30).map((one, index) => (index < FEW ? one : { ...one, guard: 'fuse' })),
  ),
];

/** `ConfigMap soak-a/alpha-0`. */
export function itemText({ kind, namespace, name }: Item): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}

/** The path of an object, or of its kind's collection. */
export function itemPath({ kind, namespace, name }: Item, collection = false): string {
  const [api, plural] = API_PATHS[kind];
  const base = `/${api}${namespace === undefined ? '' : `/namespaces/${namespace}`}/${plural}`;
  return collection ? base : `${base}/${name}`;
}

function item(kind: Kind, namespace: string | undefined, name: string, guard?: Item['guard']): Item {
  return { kind, namespace, name, guard };
}

function many(kind: Kind, namespace: string, prefix: string, count: number): Item[] {
  return Array.from({ length: count }, (_, index) => item(kind, namespace, `${prefix}-${kind.toLowerCase()}-${index}`));
}

function stack(
  name: string,
  { allOrFew = false, approves = false, disposable = false }: Partial<StackItems>,
  items: readonly Item[],
): StackItems {
  return { name, items, allOrFew, approves, disposable };
}
