import { type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { StackTarget } from '../../agent/stack/target.ts';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import type { AuditEvent } from '../kube-audit.ts';

/** An engine rig with what tests of removals ask for again and again. ConfigMaps are in its namespace. */
export interface RemovalRig extends EngineRig {
  /** Starts an agent's engine, directly or through a proxy. */
  start(options?: {
    readonly held?: boolean;
    readonly url?: string;
    readonly credential?: string;
  }): ReturnType<EngineRig['broker']['start']>;
  /** Path of a ConfigMap. */
  path(name: string): string;
  /** The live ConfigMap; undefined when there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: a JSON answer
  live(name: string): Promise<any>;
  /** Which of these ConfigMaps exist. */
  present(names: readonly string[]): Promise<string[]>;
  /** What the status says of an object. */
  told(target: StackTarget, name: string): ObjectStatus | undefined;
  /** Offers a target and waits until it is applied. */
  apply(agent: Awaited<ReturnType<RemovalRig['start']>>, target: StackTarget): Promise<StackTarget>;
  /** Requests of the rig's identity that changed something, since a mark. */
  mutations(since: number): Promise<AuditEvent[]>;
}

/** Opens it. Call in `beforeAll`. */
export async function openRemovalRig(name: string): Promise<RemovalRig> {
  const rig = await openEngineRig(name);
  const { server, identity, namespace, broker } = rig;
  const path = (object: string) => `/api/v1/namespaces/${namespace}/configmaps/${object}`;
  const live: RemovalRig['live'] = async (object) => {
    const { status, body } = await server.request('GET', path(object));
    return status === 200 ? body : undefined;
  };
  return {
    ...rig,
    path,
    live,
    start: ({ url, held = false, credential = 'key' } = {}) =>
      broker.start(
        url === undefined ? { url: server.url, caData: server.caData, token: identity.token } : { url, token: identity.token },
        { namespace, held, credential },
      ),
    async present(names) {
      const found = await Promise.all(names.map(async (object) => ((await live(object)) ? [object] : [])));
      return found.flat();
    },
    told: ({ stackId }, object) => broker.statuses.get(stackId)?.objects.find((status) => status.name === object),
    async apply(agent, target) {
      agent.reconciler.offer(target);
      await broker.until(`applied at ${target.generation}`, () => {
        const status = broker.statuses.get(target.stackId);
        return status?.phase === Phase.APPLIED && status.appliedGeneration === target.generation;
      });
      return target;
    },
    async mutations(since) {
      const verbs = ['create', 'update', 'patch', 'delete', 'deletecollection'];
      return await server.auditEvents({ user: identity.user, since, verbs });
    },
  };
}

/** A ConfigMap as YAML. */
export function configMap(name: string, value = 'a', metadata = ''): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n${metadata}data:\n  key: ${value}\n`;
}

/** Documents of one text. */
export function yaml(...documents: readonly string[]): string {
  return documents.join('---\n');
}

/** `prefix-0` to `prefix-<count - 1>`. */
export function names(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
}
