import { type Item, WIDGETS } from './items.ts';

/** Any JSON object. */
export type Json = Readonly<Record<string, unknown>>;

/** The object of an item as a stack wants it; every revision differs from the others in fields that the stack owns. */
export function documentOf(item: Item, revision: number): Json {
  const { kind, namespace, name, guard } = item;
  const value = `r${revision}`;
  const mark = guard === 'mark never' ? 'never' : guard === 'mark orphan' ? 'orphan' : undefined;
  const metadata = {
    name,
    ...(namespace !== undefined && { namespace }),
    labels: { 'soak-value': value },
    ...(mark !== undefined && { annotations: { 'brokkr.io/prune': mark } }),
  };
  return { ...typeOf(item), kind, metadata, ...contentOf(item, value, revision) };
}

/** A version of the API server's own refusal: the objects beside it must not suffer once it is gone again. */
export function brokenDocument(stack: string): Json {
  const labels = { app: `${stack}-broken` };
  const containers = [{ name: 'main', image: 'registry.example.com/main:1' }];
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: `${stack}-broken`, namespace: 'soak-a' },
    spec: { replicas: -1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers } } },
  };
}

/** A merge patch of fields that the stack owns. */
export function tamperPatch({ kind }: Item): Json {
  switch (kind) {
    case 'ConfigMap':
      return { data: { value: 'tampered' } };
    case 'Secret':
      return { stringData: { value: 'tampered' } };
    case 'Deployment':
      return { spec: { template: { metadata: { annotations: { 'soak-value': 'tampered' } } } } };
    case 'Service':
      return { spec: { selector: { app: 'tampered' } } };
    case 'Widget':
      return { spec: { value: 'tampered' } };
    case 'Role':
      return { rules: [] };
    case 'ServiceAccount':
    case 'RoleBinding':
    case 'Namespace':
    case 'CustomResourceDefinition':
      return { metadata: { labels: { 'soak-value': 'tampered' } } };
  }
}

/** An apply configuration with an owned label and one that is nobody's. */
export function foreignApply(item: Item): Json {
  const { kind, namespace, name } = item;
  const labels = { 'soak-value': 'foreign', 'soak-foreign': 'yes' };
  return { ...typeOf(item), kind, metadata: { name, ...(namespace !== undefined && { namespace }), labels } };
}

function typeOf({ kind }: Item): { readonly apiVersion: string } {
  switch (kind) {
    case 'Deployment':
      return { apiVersion: 'apps/v1' };
    case 'Role':
    case 'RoleBinding':
      return { apiVersion: 'rbac.authorization.k8s.io/v1' };
    case 'CustomResourceDefinition':
      return { apiVersion: 'apiextensions.k8s.io/v1' };
    case 'Widget':
      return { apiVersion: `${WIDGETS.group}/v1` };
    case 'ConfigMap':
    case 'Secret':
    case 'Service':
    case 'ServiceAccount':
    case 'Namespace':
      return { apiVersion: 'v1' };
  }
}

function contentOf({ kind, name }: Item, value: string, revision: number): Json {
  switch (kind) {
    case 'ConfigMap':
      return { data: { value, [`only-in-${revision % 3}`]: 'x' } };
    case 'Secret':
      return { data: { value: Buffer.from(value).toString('base64') } };
    case 'Service':
      return { spec: { selector: { app: value }, ports: [{ name: 'http', port: 80, targetPort: 8000 + (revision % 100) }] } };
    case 'Deployment': {
      const annotations = { 'soak-value': value };
      const containers = [{ name: 'main', image: `registry.example.com/main:${revision}` }];
      const template = { metadata: { labels: { app: name }, annotations }, spec: { containers } };
      return { spec: { replicas: 1 + (revision % 2), selector: { matchLabels: { app: name } }, template } };
    }
    case 'Role':
      return { rules: [{ apiGroups: [''], resources: [`things-${value}`], verbs: ['get'] }] };
    case 'RoleBinding':
      return {
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
        subjects: [{ kind: 'ServiceAccount', name: `${name}-${value}`, namespace: 'soak-b' }],
      };
    case 'Widget':
      return { spec: { value } };
    case 'CustomResourceDefinition':
      return { spec: definitionSpec };
    case 'ServiceAccount':
    case 'Namespace':
      return {};
  }
}

const definitionSpec = {
  group: WIDGETS.group,
  scope: 'Namespaced',
  names: { plural: WIDGETS.plural, singular: 'widget', kind: 'Widget', listKind: 'WidgetList' },
  versions: [
    {
      name: 'v1',
      served: true,
      storage: true,
      schema: {
        openAPIV3Schema: {
          type: 'object',
          properties: { spec: { type: 'object', properties: { value: { type: 'string' } } } },
        },
      },
    },
  ],
};
