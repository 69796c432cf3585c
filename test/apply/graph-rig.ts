import type { StackTarget } from '../../agent/stack/target.ts';
import type { EngineRig } from '../engine-rig.ts';
import { type AuditEvent, isWatching } from '../kube-audit.ts';

/** Documents as one text. */
export function yaml(...documents: readonly string[]): string {
  return documents.join('---\n');
}

/** `metadata` of a document in flow style; `wave` is 0 unless given. */
export function metadata(name: string, { namespace = '', wave = 0 } = {}, annotations: readonly string[] = []): string {
  const where = namespace === '' ? '' : `, namespace: ${namespace}`;
  const all = [...annotations, ...(wave === 0 ? [] : [`brokkr.io/wave: "${wave}"`])];
  return `{name: ${name}${where}, annotations: {${all.join(', ')}}}`;
}

/** A ConfigMap with one value. */
export function configMap(name: string, place: Parameters<typeof metadata>[1] = {}, value = 'a'): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: ${metadata(name, place)}\ndata: {key: ${value}}\n`;
}

/** A Namespace. */
export function namespaceOf(name: string): string {
  return `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`;
}

/** A Deployment of one replica. `spec` is more of its pods' specification, in flow style. */
export function deployment(name: string, place: Parameters<typeof metadata>[1] = {}, spec = ''): string {
  return `apiVersion: apps/v1
kind: Deployment
metadata: ${metadata(name, place)}
spec:
  replicas: 1
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec: {containers: [{name: c, image: i}]${spec === '' ? '' : `, ${spec}`}}
`;
}

/** A pod nobody runs: the test writes its status. */
export function pod(name: string, place: Parameters<typeof metadata>[1] = {}): string {
  return `apiVersion: v1\nkind: Pod\nmetadata: ${metadata(name, place, ['brokkr.test/outcome: pending'])}\nspec: {containers: [{name: c, image: i}]}\n`;
}

/** A definition of a namespaced kind with one field, `size`. */
export function definition(group: string, plural: string, kind: string): string {
  return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ${plural}.${group}}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: ${plural}, singular: ${kind.toLowerCase()}, kind: ${kind}}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {size: {type: integer}}}
`;
}

/** A resource of such a kind. */
export function custom(group: string, kind: string, name: string, size = 1): string {
  return `apiVersion: ${group}/v1\nkind: ${kind}\nmetadata: {name: ${name}}\nspec: {size: ${size}}\n`;
}

/** What an engine asked the server since a mark, but for watches and the lists they begin with. */
export async function engineCalls({ server, identity }: EngineRig, since: number): Promise<AuditEvent[]> {
  const events = await server.auditEvents({ user: identity.user, since });
  return events.filter((event) => !isWatching(event));
}

/** Whether a request is about the engine's own inventories. */
export function isInventory({ objectRef }: AuditEvent): boolean {
  return objectRef?.name?.startsWith('brokkr-inv') === true;
}

/** The status of an object, written as its controller would. */
export async function writeStatus({ server }: EngineRig, path: string, status: object): Promise<void> {
  const answer = await server.request('PATCH', `${path}/status`, { status }, { 'content-type': 'application/merge-patch+json' });
  if (answer.status !== 200) throw new Error(`PATCH ${path}/status: ${answer.status} ${JSON.stringify(answer.body)}`);
}

/** The objects the status of a stack names, as `state reason Kind name`. */
export function told({ broker }: EngineRig, { stackId }: StackTarget): string[] {
  const { objects = [] } = broker.statuses.get(stackId) ?? {};
  return objects.map(({ state, reason, kind, name }) => `${state} ${reason} ${kind} ${name}`);
}
