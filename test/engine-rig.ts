import { openTestBroker, type TestAgent, type TestBroker } from './agent-engine.ts';
import { type Kube as TestKube, useKube } from './kube.ts';
import type { TestIdentity } from './kube-identity.ts';

/** The run's API server, an identity and a namespace of the file's own, and the peer of its engines. */
export interface EngineRig {
  readonly server: TestKube;
  readonly identity: TestIdentity;
  readonly namespace: string;
  /** Dispose at the end of the file. */
  readonly broker: TestBroker;
  /** Starts an engine on the run's server, with the inventories in the namespace. */
  start(options?: Omit<StartOptions, 'namespace'>): Promise<TestAgent>;
}

type StartOptions = Parameters<TestBroker['start']>[1];

/** Opens it. Call in `beforeAll`: the first run of a machine builds the control plane. */
export async function openEngineRig(name: string): Promise<EngineRig> {
  const server = await useKube();
  const namespace = await server.namespace(name);
  const identity = await server.identity(name, { clusterAdmin: true, namespace });
  const broker = openTestBroker(namespace);
  const endpoint = { url: server.url, caData: server.caData, token: identity.token };
  return { server, identity, namespace, broker, start: (options = {}) => broker.start(endpoint, { namespace, ...options }) };
}
