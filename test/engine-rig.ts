import { openTestBroker, type TestAgent, type TestBroker } from './agent-engine.ts';
import { type Kube as TestKube, useKube } from './kube.ts';
import type { TestIdentity } from './kube-identity.ts';

/** An API server, an identity and a namespace of the file's own, and the peer of its engines. */
export interface EngineRig {
  readonly server: TestKube;
  readonly identity: TestIdentity;
  readonly namespace: string;
  /** Dispose at the end of the file. */
  readonly broker: TestBroker;
  /** Starts an engine on the server, with the inventories in the namespace. */
  start(options?: Omit<StartOptions, 'namespace'>): Promise<TestAgent>;
}

type StartOptions = Parameters<TestBroker['start']>[1];

/**
 * Opens it, on the run's server unless given another. Thousands of objects belong on one of their own: every agent of the
 * run lists and watches what has the label of a stack. Call in `beforeAll`: the first run of a machine builds the control plane.
 */
export async function openEngineRig(name: string, own?: TestKube): Promise<EngineRig> {
  const server = own ?? (await useKube());
  const namespace = await server.namespace(name);
  const identity = await server.identity(name, { clusterAdmin: true, namespace });
  const broker = openTestBroker(namespace);
  const endpoint = { url: server.url, caData: server.caData, token: identity.token };
  return { server, identity, namespace, broker, start: (options = {}) => broker.start(endpoint, { namespace, ...options }) };
}
