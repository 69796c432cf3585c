import { isMapping, keyString, type ObjectKey, type Value, type ValueObject } from './object.ts';

/** Keys (`keyString`) of definitions by the `group/kind` they define. */
export type Definitions = ReadonlyMap<string, string>;

const RBAC = 'rbac.authorization.k8s.io';
/** Namespace of what has none. */
const CLUSTER = '';

/** Where a kind has its pod template; a Pod is one itself. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  '/Pod': ['spec'],
  '/ReplicationController': ['spec', 'template', 'spec'],
  'apps/DaemonSet': ['spec', 'template', 'spec'],
  'apps/Deployment': ['spec', 'template', 'spec'],
  'apps/ReplicaSet': ['spec', 'template', 'spec'],
  'apps/StatefulSet': ['spec', 'template', 'spec'],
  'batch/Job': ['spec', 'template', 'spec'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template', 'spec'],
};

/** Kinds with references of their own, beside namespace, definition and pod template. */
const REFERENCES: Readonly<Record<string, (object: ValueObject, add: Add) => void>> = {
  [`${RBAC}/RoleBinding`]: bindingNeeds,
  [`${RBAC}/ClusterRoleBinding`]: bindingNeeds,
  '/PersistentVolume': (object, add) => add('storage.k8s.io/StorageClass', at(object, 'spec', 'storageClassName'), CLUSTER),
  '/PersistentVolumeClaim': (object, add) => claimNeeds(at(object, 'spec'), add),
  'apps/StatefulSet'(object, add) {
    for (const claim of list(at(object, 'spec', 'volumeClaimTemplates'))) claimNeeds(at(claim, 'spec'), add);
  },
  'autoscaling/HorizontalPodAutoscaler': scalerNeeds,
  'networking.k8s.io/Ingress': (object, add) =>
    add('networking.k8s.io/IngressClass', at(object, 'spec', 'ingressClassName'), CLUSTER),
  'admissionregistration.k8s.io/MutatingWebhookConfiguration': webhookNeeds,
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration': webhookNeeds,
  'apiregistration.k8s.io/APIService': (object, add) => serviceNeed(at(object, 'spec', 'service'), add),
};

/** Adds an object by `group/kind` and name: in the namespace of the one that refers to it unless given. Ignores what is no name. */
type Add = (kind: string, name: Value | undefined, namespace?: Value) => void;

/**
 * Keys (`keyString`) of the objects that have to be there before `object` can work: its namespace, the definition of its kind, what it
 * names. Whether they are anywhere is not known here.
 */
export function objectNeeds(key: ObjectKey, object: ValueObject, definitions: Definitions): Set<string> {
  const needs = new Set<string>();
  const kind = `${key.group}/${key.kind}`;
  const definition = definitions.get(kind);
  if (definition !== undefined) needs.add(definition);
  if (key.namespace !== '') needs.add(keyString({ group: '', kind: 'Namespace', namespace: '', name: key.namespace }));
  const add: Add = (target, name, namespace = key.namespace) => {
    if (typeof name !== 'string' || name === '' || typeof namespace !== 'string') return;
    needs.add(`${target}/${namespace}/${name}`);
  };
  const template = TEMPLATES[kind];
  if (template) podNeeds(at(object, ...template), add);
  REFERENCES[kind]?.(object, add);
  return needs;
}

function podNeeds(spec: Value | undefined, add: Add): void {
  add('/ServiceAccount', at(spec, 'serviceAccountName'));
  add('scheduling.k8s.io/PriorityClass', at(spec, 'priorityClassName'), CLUSTER);
  add('node.k8s.io/RuntimeClass', at(spec, 'runtimeClassName'), CLUSTER);
  for (const secret of list(at(spec, 'imagePullSecrets'))) add('/Secret', at(secret, 'name'));
  for (const volume of list(at(spec, 'volumes'))) {
    add('/PersistentVolumeClaim', at(volume, 'persistentVolumeClaim', 'claimName'));
    add('/Secret', at(volume, 'secret', 'secretName'));
    add('/ConfigMap', at(volume, 'configMap', 'name'));
    claimNeeds(at(volume, 'ephemeral', 'volumeClaimTemplate', 'spec'), add);
    for (const source of list(at(volume, 'projected', 'sources'))) {
      add('/Secret', at(source, 'secret', 'name'));
      add('/ConfigMap', at(source, 'configMap', 'name'));
    }
  }
  for (const container of [...list(at(spec, 'initContainers')), ...list(at(spec, 'containers'))]) {
    for (const source of list(at(container, 'envFrom'))) {
      add('/Secret', at(source, 'secretRef', 'name'));
      add('/ConfigMap', at(source, 'configMapRef', 'name'));
    }
    for (const variable of list(at(container, 'env'))) {
      add('/Secret', at(variable, 'valueFrom', 'secretKeyRef', 'name'));
      add('/ConfigMap', at(variable, 'valueFrom', 'configMapKeyRef', 'name'));
    }
  }
}

function claimNeeds(spec: Value | undefined, add: Add): void {
  add('storage.k8s.io/StorageClass', at(spec, 'storageClassName'), CLUSTER);
  add('/PersistentVolume', at(spec, 'volumeName'), CLUSTER);
}

function bindingNeeds(object: ValueObject, add: Add): void {
  const kind = at(object, 'roleRef', 'kind');
  const name = at(object, 'roleRef', 'name');
  if (kind === 'Role') add(`${RBAC}/Role`, name);
  if (kind === 'ClusterRole') add(`${RBAC}/ClusterRole`, name, CLUSTER);
}

function scalerNeeds(object: ValueObject, add: Add): void {
  const target = at(object, 'spec', 'scaleTargetRef');
  const apiVersion = at(target, 'apiVersion');
  const kind = at(target, 'kind');
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return;
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  add(`${group}/${kind}`, at(target, 'name'));
}

function webhookNeeds(object: ValueObject, add: Add): void {
  for (const webhook of list(object.webhooks)) serviceNeed(at(webhook, 'clientConfig', 'service'), add);
}

function serviceNeed(service: Value | undefined, add: Add): void {
  add('/Service', at(service, 'name'), at(service, 'namespace'));
}

function at(value: Value | undefined, ...path: readonly string[]): Value | undefined {
  let found = value;
  for (const name of path) found = isMapping(found) ? found[name] : undefined;
  return found;
}

function list(value: Value | undefined): readonly Value[] {
  return Array.isArray(value) ? value : [];
}
