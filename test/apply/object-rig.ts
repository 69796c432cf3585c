import type { StackTarget } from '../../agent/stack/target.ts';
import { type ObjectStatus, Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import type { AttemptEvent } from '../../proto/gen/brokkr/v1/sync_pb.js';
import type { PublishSettings, TestAgent } from '../agent-engine.ts';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import type { AuditEvent } from '../kube-audit.ts';

/** A live object as the API server gives it. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into it
export type Live = any;

/** An engine rig with the shorthands of tests about single objects. */
export interface ObjectRig extends EngineRig {
  /** Publishes, offers and waits until the attempt has ended, well or not. */
  sync(agent: TestAgent, text: string, settings?: PublishSettings): Promise<StackTarget>;
  /** Waits until the attempt at a target has ended, well or not. */
  ended(target: StackTarget): Promise<StackTarget>;
  /** The phase a stack is in. */
  phase(target: StackTarget): Phase | undefined;
  /** The event of the attempt at a target. */
  event(target: StackTarget): AttemptEvent | undefined;
  /** What the event of the attempt at a target says of an object. */
  told(target: StackTarget, name: string): ObjectStatus | undefined;
  /** Events of corrections. */
  corrections(target: StackTarget): AttemptEvent[];
  /** Path of an object in the file's namespace: `path('configmaps', 'a')`, `path('deployments', 'web', 'apps/v1')`. */
  path(plural: string, name: string, apiVersion?: string): string;
  /** The object at a path; rejects when there is none. */
  get(path: string): Promise<Live>;
  /** What the engine asked of the objects of one kind, its inventory aside. */
  calls(mark: number, resource: string, verb?: string): Promise<AuditEvent[]>;
  /** Applies an object as somebody else. */
  applyAs(manager: string, path: string, object: object, force?: boolean): Promise<Live>;
  /** A merge patch by somebody else. */
  patchAs(manager: string, path: string, patch: object): Promise<Live>;
}

/** Opens it. Call in `beforeAll`. */
export async function openObjectRig(name: string): Promise<ObjectRig> {
  const rig = await openEngineRig(name);
  const { server, identity, namespace, broker } = rig;
  const ok = async (method: string, path: string, body?: object, type?: string) => {
    const answer = await server.request(method, path, body, type === undefined ? {} : { 'content-type': type });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body as Live;
  };
  const phase = ({ stackId }: StackTarget) => broker.statuses.get(stackId)?.phase;
  const event = (target: StackTarget) => broker.eventsOf(target).findLast(({ generation }) => generation === target.generation);
  const last: readonly (Phase | undefined)[] = [Phase.APPLIED, Phase.FAILED, Phase.REFUSED];
  const ended = async (target: StackTarget) => {
    await broker.until('ended', () => event(target) !== undefined && last.includes(phase(target)));
    return target;
  };
  return {
    ...rig,
    ...{ ended, phase, event },
    async sync(agent, text, settings) {
      const target = await broker.publish(text, settings);
      agent.reconciler.offer(target);
      return await ended(target);
    },
    told: (target, object) => event(target)?.objects.find((status) => status.name === object),
    corrections: (target) => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT'),
    path(plural, object, apiVersion = 'v1') {
      const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
      return `${root}/namespaces/${namespace}/${plural}/${object}`;
    },
    get: (path) => ok('GET', path),
    async calls(mark, resource, verb) {
      const events = await server.auditEvents({ user: identity.user, since: mark, resource });
      return events.filter(
        (call) =>
          call.verb !== 'watch' &&
          (verb === undefined || call.verb === verb) &&
          !call.objectRef?.name?.startsWith('brokkr-inv-') &&
          call.objectRef?.name !== undefined,
      );
    },
    applyAs: (manager, path, object, force = true) =>
      ok('PATCH', `${path}?fieldManager=${manager}&force=${force}`, object, 'application/apply-patch+yaml'),
    patchAs: (manager, path, patch) => ok('PATCH', `${path}?fieldManager=${manager}`, patch, 'application/merge-patch+json'),
  };
}

/** A ConfigMap as YAML. */
export function configMap(name: string, data: Readonly<Record<string, string>> = { key: 'a' }, metadata: object = {}): string {
  return `${JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...metadata }, data })}\n`;
}

/** A Deployment as YAML. */
export function deployment(name: string, spec: object = {}, metadata: object = {}): string {
  const labels = { app: name };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  const object = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, ...metadata } };
  return `${JSON.stringify({ ...object, spec: { replicas: 2, selector: { matchLabels: labels }, template, ...spec } })}\n`;
}

/** Documents of one text. */
export function yaml(...documents: string[]): string {
  return documents.join('---\n');
}
