import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findPeer } from '../../hack/peers/peers.ts';
import { canonicalJson } from '../../lib/object.ts';
import { parseStream } from '../../lib/yaml.ts';
import type { MeasuredControlPlane } from './cluster.ts';
import type { MeasuredBroker } from './environment.ts';

/** Requests the bare client has in flight. */
const IN_FLIGHT = 16;
const PATHS: Readonly<Record<string, string>> = {
  ConfigMap: '/api/v1',
  Service: '/api/v1',
  ServiceAccount: '/api/v1',
  Deployment: '/apis/apps/v1',
};

/** Who applies. */
export const SIDES = ['bare', 'kubectl', 'flux', 'kapp', 'agent'] as const;

/** One of them. */
export type SideName = (typeof SIDES)[number];

/** How a client applies a set of documents. */
export interface Side {
  /** What its requests' user agent begins with. */
  readonly userAgent: string;
  /** Applies `text` under a name of its own and returns the milliseconds: of a new process for the peers, from the commit of the publication for the agent. */
  apply(stack: string, text: string): Promise<number>;
}

/** All sides on one API server, with the identity that is subject to Priority & Fairness. */
export async function openSides(
  broker: MeasuredBroker,
  plane: MeasuredControlPlane,
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<Readonly<Record<SideName, Side>>> {
  const tools = { env: process.env, progress };
  const kubeconfig = plane.controlPlane.identities.ops.kubeconfigPath;
  const kubectl = await plane.controlPlane.kubectlPath();
  const flux = await findPeer('flux', tools, signal);
  const kapp = await findPeer('kapp', tools, signal);
  /** `args` get the file. */
  const program = (userAgent: string, path: string, args: (file: string, stack: string) => readonly string[]): Side => ({
    userAgent,
    async apply(stack, text) {
      const file = join(plane.dir, `${userAgent}.yaml`);
      await writeFile(file, text);
      const start = performance.now();
      await promisify(execFile)(path, args(file, stack), { maxBuffer: 2 ** 26, signal });
      return performance.now() - start;
    },
  });
  return {
    bare: { userAgent: 'bare', apply: (_stack, text) => bareClient(plane, text) },
    kubectl: program('kubectl', kubectl, (file) => ['--kubeconfig', kubeconfig, 'apply', '--server-side', '-f', file]),
    flux: program('flux', flux, (file) => [kubeconfig, file, 'default']),
    // without controllers nothing ever becomes ready: no side waits for it
    kapp: program('kapp', kapp, (file, stack) => [
      ...['deploy', '--kubeconfig', kubeconfig, '--app', stack, '--namespace', 'default', '--file', file],
      ...['--yes', '--wait=false'],
    ]),
    agent: { userAgent: 'brokkr-agent', apply: async (stack, text) => (await publishAndWait(broker, stack, text)).agentMs },
  };
}

async function bareClient(plane: MeasuredControlPlane, text: string): Promise<number> {
  const bodies = parseStream(text).documents.map(({ value }) => canonicalJson(value));
  const start = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) {
        const object = JSON.parse(body) as { kind: string; metadata: { name: string; namespace: string } };
        const path = `${PATHS[object.kind]}/namespaces/${object.metadata.namespace}/${object.kind.toLowerCase()}s/${object.metadata.name}?fieldManager=bare`;
        const { status } = await plane.request('PATCH', path, body, {
          'content-type': 'application/apply-patch+yaml',
          accept: 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json',
          'user-agent': 'bare',
        });
        if (status >= 300) throw new Error(`${path} answered ${status}`);
      }
    }),
  );
  return performance.now() - start;
}

interface AgentState {
  readonly applied_generation: number;
  readonly applied_at: string | null;
  readonly published_at: string;
  readonly phase: string;
  readonly message: string | null;
}

/**
 * Publishes and waits until the broker has stored the agent's word that all is applied: `wholeMs` from sending the publication,
 * `agentMs` from its commit, which is when the agent's work begins (the rest is bench `publish`). By the times in the status,
 * so that asking often does not take part in the race.
 */
export async function publishAndWait(
  broker: MeasuredBroker,
  name: string,
  text: string,
): Promise<{ readonly wholeMs: number; readonly agentMs: number }> {
  const startedAt = Date.now();
  const { stack } = await broker.call<{ stack: { id: string; generation: number } }>(
    'PUT',
    `/api/v1/stacks/by-name/${name}/apply?label=bench`,
    text,
    'application/yaml',
  );
  for (;;) {
    const { agents } = await broker.call<{ agents: AgentState[] }>('GET', `/api/v1/stacks/${stack.id}/status`);
    const [agent] = agents;
    if (agent?.applied_at && agent.applied_generation >= stack.generation) {
      const appliedAt = Date.parse(agent.applied_at);
      return { wholeMs: appliedAt - startedAt, agentMs: appliedAt - Date.parse(agent.published_at) };
    }
    if (agent && ['failed', 'refused'].includes(agent.phase)) throw new Error(`the agent says ${agent.phase}: ${agent.message}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
