import { type Kube, useKube } from '../kube.ts';
import { unique } from '../kube-identity.ts';
import { testDatabase } from '../postgres.ts';
import { startAgent, startBroker, type TestBroker, type TestProcess } from '../processes.ts';

/** Where a stack stands on one agent, as REST tells it. */
export interface AgentStatus {
  readonly agent_id: string;
  readonly desired_generation: number;
  readonly received_generation: number;
  readonly applied_generation: number;
  readonly phase: string;
  readonly health: string;
  readonly message: string | null;
  readonly held_generation: number | null;
  readonly held_until: string | null;
  readonly objects: readonly {
    readonly kind: string;
    readonly name: string;
    readonly reason: string;
    readonly message: string;
    readonly line: number | null;
    readonly column: number | null;
  }[];
}

/** An event as REST tells it. */
export interface Event {
  readonly deployment_object_id: string;
  readonly event_type: string;
  readonly status: 'SUCCESS' | 'FAILURE';
  readonly message: string | null;
  readonly generation: number | null;
  readonly attempt_id: string | null;
  readonly objects: readonly {
    readonly kind: string;
    readonly name: string;
    readonly reason: string;
    readonly message: string;
  }[];
}

/** A broker process, and what a test does to it. */
export interface Rig {
  readonly kube: Kube;
  readonly broker: TestBroker;
  readonly databaseUrl: string;
  /** Creates an agent record with one label of its own. */
  register(): Promise<AgentRecord>;
  /** Starts its process against the shared cluster. */
  start(
    agent: AgentRecord,
    options?: {
      readonly brokerUrl?: string;
      readonly env?: Readonly<Record<string, string>>;
      readonly kubeconfigPath?: string;
      readonly dataDir?: string;
    },
  ): Promise<TestProcess & { readonly dataDir: string }>;
  /** Publishes under a stack name to the agent's label; returns stack id, generation and deployment object. */
  publish(
    stack: string,
    yaml: string,
    label: string,
    query?: string,
  ): Promise<{ readonly id: string; readonly generation: number; readonly objectId: string; readonly result: string }>;
  /** Resolves when the stack's status on its (only) agent fits; rejects after `timeoutMs` with what it was. */
  status(stackId: string, fits: (status: AgentStatus) => boolean, timeoutMs?: number): Promise<AgentStatus>;
  events(agentId: string): Promise<readonly Event[]>;
}

/** An agent as the broker knows it, with what its process needs. */
export interface AgentRecord {
  readonly id: string;
  readonly pak: string;
  readonly label: string;
  readonly namespace: string;
  readonly kubeconfigPath: string;
  /** Name of the API user, for the audit log. */
  readonly user: string;
}

/** Starts a broker on a database of its own. */
export async function startRig(env: Readonly<Record<string, string>> = {}): Promise<Rig> {
  const kube = await useKube();
  const database = await testDatabase();
  const broker = await startBroker({ databaseUrl: database.url, env });
  return rigOn(kube, broker, database.url);
}

/** The same around a broker that runs already, for instance after a restart. */
export function rigOn(kube: Kube, broker: TestBroker, databaseUrl: string): Rig {
  return {
    kube,
    broker,
    databaseUrl,
    async register() {
      const label = unique('label');
      const namespace = await kube.namespace('agent');
      const identity = await kube.identity(unique('agent'), { clusterAdmin: true });
      const { status, body } = await broker.api<{ agent: { id: string }; initial_pak: string }>('POST', '/api/v1/agents', {
        name: label,
        cluster_name: 'test',
        labels: [label],
      });
      if (status !== 201) throw new Error(`agent not created: ${JSON.stringify(body)}`);
      return {
        id: body.agent.id,
        pak: body.initial_pak,
        label,
        namespace,
        kubeconfigPath: identity.kubeconfigPath,
        user: identity.user,
      };
    },
    start: (agent, options = {}) =>
      startAgent({
        brokerUrl: options.brokerUrl ?? broker.url,
        pak: agent.pak,
        kubeconfigPath: options.kubeconfigPath ?? agent.kubeconfigPath,
        namespace: agent.namespace,
        name: agent.label,
        ...(options.dataDir !== undefined && { dataDir: options.dataDir }),
        env: options.env ?? {},
      }),
    async publish(stack, yaml, label, query = '') {
      const { status, body } = await broker.api<{
        stack: { id: string; generation: number };
        deployment_object: { id: string };
        result: string;
      }>('PUT', `/api/v1/stacks/by-name/${stack}/apply?label=${label}${query}`, yaml, { 'content-type': 'application/yaml' });
      if (status !== 200) throw new Error(`not published: ${status} ${JSON.stringify(body)}`);
      return { id: body.stack.id, generation: body.stack.generation, objectId: body.deployment_object.id, result: body.result };
    },
    async status(stackId, fits, timeoutMs = 30_000) {
      return await until(
        async () => {
          const { body } = await broker.api<{ agents?: AgentStatus[] }>('GET', `/api/v1/stacks/${stackId}/status`);
          return body.agents?.[0];
        },
        (status) => status !== undefined && fits(status),
        timeoutMs,
      ).then((status) => status as AgentStatus);
    },
    async events(agentId) {
      return (await broker.api<Event[]>('GET', `/api/v1/agents/${agentId}/events`)).body;
    },
  };
}

/** Looks again and again until the value fits; rejects after `timeoutMs` with the last one. */
export async function until<T>(look: () => Promise<T>, fits: (value: T) => boolean, timeoutMs = 30_000): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await look().catch((error: unknown) => {
      if (performance.now() > end) throw error;
      return undefined as T;
    });
    if (value !== undefined && fits(value)) return value;
    if (performance.now() > end) throw new Error(`after ${timeoutMs} ms it is still ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** True when the stack's newest generation is applied and healthy. */
export function healthyAt(generation: number): (status: AgentStatus) => boolean {
  return (status) => status.applied_generation === generation && status.phase === 'applied' && status.health === 'healthy';
}

/** A namespaced ConfigMap. */
export function configMap(namespace: string, name: string, value = '1'): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: ${namespace}}\ndata: {key: "${value}"}\n`;
}
