import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { canonicalJson } from '../../lib/object.ts';
import { parseStream } from '../../lib/yaml.ts';
import { type Bench, median, type Result } from './bench.ts';
import { type MeasuredCluster, startCluster } from './cluster.ts';
import { type MeasuredBroker, mixedDocuments, residentBytes, startBroker } from './environment.ts';

const OBJECTS = 1000;
const ROUNDS = 5;
const IN_FLIGHT = 16;
const NAMESPACES = 10;
/** Between two turns, so that nobody pays for what the one before left behind. */
const SETTLE_MS = 3_000;
const PATHS: Readonly<Record<string, string>> = {
  ConfigMap: '/api/v1',
  Service: '/api/v1',
  ServiceAccount: '/api/v1',
  Deployment: '/apis/apps/v1',
};

/**
 * 1,000 mixed objects into ten namespaces, each round into fresh ones on the same server: a bare client that only sends
 * the patches, kubectl, and the agent (from the commit of the publication to the last object applied).
 */
export const bench: Bench = {
  name: 'apply',
  about: '1,000 mixed objects on the same server: the agent, a bare patching client, kubectl apply --server-side',
  async run(note, signal) {
    await using broker = await startBroker();
    await using cluster = await startCluster(broker, ['bench'], { audit: 'batch' });
    const rates = { bare: [] as number[], kubectl: [] as number[], agent: [] as number[], whole: [] as number[] };
    const sides = {
      bare: async (prefix: string) => bareClient(cluster, await namespaces(cluster, prefix)),
      agent: async (prefix: string) => {
        const { wholeMs, agentMs } = await publishAndWait(broker, prefix, await namespaces(cluster, prefix), 1);
        rates.whole.push(OBJECTS / (wholeMs / 1000));
        return agentMs;
      },
      kubectl: async (prefix: string) => kubectl(cluster, await namespaces(cluster, prefix)),
    };
    for (let round = 0; round < ROUNDS; round++) {
      // the server slows down as it fills: nobody is always first
      for (const side of rotated(['bare', 'agent', 'kubectl'] as const, round)) {
        signal.throwIfAborted();
        rates[side].push(OBJECTS / ((await sides[side](`${side}-${round}`)) / 1000));
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      }
      note(
        `round ${round}: bare ${rates.bare[round]?.toFixed(0)}/s, kubectl ${rates.kubectl[round]?.toFixed(0)}/s, agent ${rates.agent[round]?.toFixed(0)}/s`,
      );
    }
    const agent = median(rates.agent);
    const results: Result[] = [
      {
        metric: 'first sync, publication to applied, against kubectl',
        value: median(rates.whole),
        unit: 'objects/s',
        baseline: median(rates.kubectl),
        ratio: median(rates.whole) / median(rates.kubectl),
        budget: 'written down: kubectl publishes nothing',
      },
      {
        metric: 'first sync against a bare client',
        value: agent,
        unit: 'objects/s',
        baseline: median(rates.bare),
        ratio: agent / median(rates.bare),
        budget: '≥ 0.8 × by design',
      },
      {
        metric: 'first sync against kubectl',
        value: agent,
        unit: 'objects/s',
        baseline: median(rates.kubectl),
        ratio: agent / median(rates.kubectl),
        budget: '≥ 2 × now, ≥ 2.5 × by design',
        met: agent / median(rates.kubectl) >= 2,
      },
    ];
    results.push(await unchanged(broker, cluster));
    results.push({
      metric: 'memory of the agent afterwards',
      value: (await residentBytes(cluster.agent.pid)) / 2 ** 20,
      unit: 'MiB',
      budget: '≤ 200 MB',
    });
    return results;
  },
};

function rotated<T>(items: readonly T[], by: number): T[] {
  return items.map((_, index) => items[(index + by) % items.length] as T);
}

/** Ten empty namespaces, so that nobody pays for making them. */
async function namespaces(cluster: MeasuredCluster, prefix: string): Promise<string[]> {
  const names = Array.from({ length: NAMESPACES }, (_, index) => `${prefix}-${index}`);
  for (const name of names)
    await cluster.request('POST', '/api/v1/namespaces', JSON.stringify({ metadata: { name } }), {
      'content-type': 'application/json',
    });
  return names;
}

async function bareClient(cluster: MeasuredCluster, names: readonly string[]): Promise<number> {
  const bodies = parseStream(mixedDocuments(OBJECTS, names)).documents.map(({ value }) => canonicalJson(value));
  const start = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) {
        const object = JSON.parse(body) as { kind: string; metadata: { name: string; namespace: string } };
        const path = `${PATHS[object.kind]}/namespaces/${object.metadata.namespace}/${object.kind.toLowerCase()}s/${object.metadata.name}?fieldManager=bare`;
        const { status } = await cluster.request('PATCH', path, body, {
          'content-type': 'application/apply-patch+yaml',
          accept: 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json',
        });
        if (status >= 300) throw new Error(`${path} answered ${status}`);
      }
    }),
  );
  return performance.now() - start;
}

async function kubectl(cluster: MeasuredCluster, names: readonly string[]): Promise<number> {
  const file = join(cluster.dir, 'kubectl.yaml');
  await writeFile(file, mixedDocuments(OBJECTS, names));
  const program = await cluster.controlPlane.kubectlPath();
  const start = performance.now();
  await promisify(execFile)(
    program,
    ['--kubeconfig', cluster.controlPlane.identities.ops.kubeconfigPath, 'apply', '--server-side', '-f', file],
    { maxBuffer: 2 ** 26 },
  );
  return performance.now() - start;
}

/**
 * Until the broker has stored the agent's word that all is applied: `wholeMs` from sending the publication, `agentMs` from
 * its commit, which is when the agent's work begins (the rest is bench `publish`). By the times in the status, so that
 * asking often does not take part in the race.
 */
async function publishAndWait(
  broker: MeasuredBroker,
  stack: string,
  names: readonly string[],
  generation: number,
): Promise<{ readonly wholeMs: number; readonly agentMs: number }> {
  const text = mixedDocuments(OBJECTS, names);
  const startedAt = Date.now();
  const { stack: published } = await broker.call<{ stack: { id: string } }>(
    'PUT',
    `/api/v1/stacks/by-name/${stack}/apply?label=bench`,
    text,
    'application/yaml',
  );
  for (;;) {
    const { agents } = await broker.call<{ agents: AgentState[] }>('GET', `/api/v1/stacks/${published.id}/status`);
    const [agent] = agents;
    if (agent?.applied_at && agent.applied_generation >= generation) {
      const appliedAt = Date.parse(agent.applied_at);
      return { wholeMs: appliedAt - startedAt, agentMs: appliedAt - Date.parse(agent.published_at) };
    }
    if (agent && ['failed', 'refused'].includes(agent.phase)) throw new Error(`the agent says ${agent.phase}: ${agent.message}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

interface AgentState {
  readonly applied_generation: number;
  readonly applied_at: string | null;
  readonly published_at: string;
  readonly phase: string;
  readonly message: string | null;
}

/** The same content again under a new generation (a changed comment): what the audit log counts. */
async function unchanged(broker: MeasuredBroker, cluster: MeasuredCluster): Promise<Result> {
  const names = Array.from({ length: NAMESPACES }, (_, index) => `agent-0-${index}`);
  const settled = () => new Promise((resolve) => setTimeout(resolve, 3000)); // the audit log is written in batches
  await settled();
  const before = await applies(cluster);
  const { stack } = await broker
    .call<{ stack: { id: string; generation: number } }>('GET', '/api/v1/stacks/by-name/agent-0')
    .then((found) => ({ stack: found as unknown as { id: string; generation: number } }));
  await broker.call(
    'POST',
    `/api/v1/stacks/${stack.id}/deployment-objects`,
    `# nothing new\n${mixedDocuments(OBJECTS, names)}`,
    'application/yaml',
  );
  await settled();
  const calls = (await applies(cluster)) - before;
  return { metric: 'applies when nothing changed', value: calls, unit: 'calls', budget: '0', met: calls === 0 };
}

/** Applies to objects of the stacks (not the agent's own inventory) in the audit log so far. */
async function applies(cluster: MeasuredCluster): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  const lines = (await readFile(cluster.controlPlane.auditLogPath, 'utf8')).trim().split('\n');
  const seen = new Set<string>();
  for (const line of lines) {
    const { auditID, verb, requestURI } = JSON.parse(line) as { auditID: string; verb: string; requestURI: string };
    if (verb === 'patch' && /namespaces\/agent-/.test(requestURI)) seen.add(auditID);
  }
  return seen.size;
}
