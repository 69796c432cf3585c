import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildControlPlane } from '../../hack/kube/binaries.ts';
import { type ControlPlane, startControlPlane } from '../../hack/kube/control-plane.ts';
import { type Measured, type MeasuredBroker, measure } from './environment.ts';

/** A real control plane, without an agent. */
export interface MeasuredControlPlane extends AsyncDisposable {
  readonly controlPlane: ControlPlane;
  readonly dir: string;
  /** A request as the identity that is subject to RBAC and to Priority & Fairness; over kept-alive connections. */
  request(
    method: string,
    path: string,
    body?: string,
    headers?: Readonly<Record<string, string>>,
  ): Promise<{ readonly status: number; readonly body: string }>;
}

/** Starts etcd and the API server (and the controllers) in a temporary directory. */
async function startControlPlaneForBench({
  withControllers = false,
  audit = 'off',
}: {
  readonly withControllers?: boolean;
  readonly audit?: 'off' | 'batch';
} = {}): Promise<MeasuredControlPlane> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-bench-kube-'));
  const stop = new AbortController();
  const progress = (line: string) => void process.stderr.write(`control plane: ${line}\n`);
  const binaries = buildControlPlane({ env: process.env, progress }, stop.signal);
  const controlPlane = await startControlPlane(
    { binaries, dir: join(dir, 'kube'), progress: () => undefined, withControllers, audit },
    stop.signal,
  );
  if (withControllers) await controlPlane.controllersReady;
  const agent = new HttpsAgent({ keepAlive: true, maxSockets: 16, ca: controlPlane.caData });
  const { token } = controlPlane.identities.ops;
  return {
    controlPlane,
    dir,
    request: (method, path, body, headers = {}) =>
      new Promise((resolve, reject) => {
        const request = httpsRequest(
          new URL(path, controlPlane.url),
          {
            method,
            agent,
            headers: {
              authorization: `Bearer ${token}`,
              ...headers,
              ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }),
            },
          },
          (response) => {
            const chunks: Buffer[] = [];
            response.on('data', (chunk: Buffer) => chunks.push(chunk));
            response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
          },
        );
        request.on('error', reject);
        request.end(body);
      }),
    async [Symbol.asyncDispose]() {
      agent.destroy();
      stop.abort(new Error('bench over'));
      await controlPlane[Symbol.asyncDispose]();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A control plane with one real agent connected to the broker. */
export interface MeasuredCluster extends MeasuredControlPlane {
  /** The one that runs now. */
  readonly agent: Measured;
  readonly agentId: string;
  /** Stops the agent and starts it again with what it has on disk; how long until the broker has its session, in milliseconds. */
  restartAgent(): Promise<number>;
  /** Resolves when the ConfigMap in `default` has this value, told by a watch. */
  configMapValue(name: string, key: string, value: string, signal: AbortSignal): Promise<void>;
  /** One server-side apply of a small ConfigMap on a warm connection, in milliseconds. */
  barePatch(name: string, value: string): Promise<number>;
}

/** Starts both. */
export async function startCluster(
  broker: MeasuredBroker,
  labels: readonly string[],
  options: { readonly withControllers?: boolean; readonly audit?: 'off' | 'batch' } = {},
): Promise<MeasuredCluster> {
  const plane = await startControlPlaneForBench(options);
  const { agent: record, initial_pak } = await broker.call<{ agent: { id: string }; initial_pak: string }>(
    'POST',
    '/api/v1/agents',
    { name: 'bench', cluster_name: 'bench', labels },
  );
  const pakFile = join(plane.dir, 'pak');
  await writeFile(pakFile, initial_pak, { mode: 0o600 });
  await plane.request('POST', '/api/v1/namespaces', JSON.stringify({ metadata: { name: 'brokkr' } }), {
    'content-type': 'application/json',
  });
  // as users start it: the launcher keeps compiled code from run to run
  const start = () =>
    measure('bin/brokkr-agent.js', ['start'], {
      BROKKR__AGENT__BROKER_URL: broker.url,
      BROKKR__AGENT__PAK_FILE: pakFile,
      BROKKR__AGENT__AGENT_NAME: 'bench',
      BROKKR__AGENT__CLUSTER_NAME: 'bench',
      BROKKR__AGENT__KUBECONFIG_PATH: plane.controlPlane.identities.ops.kubeconfigPath,
      BROKKR__AGENT__NAMESPACE: 'brokkr',
      BROKKR__AGENT__DATA_DIR: join(plane.dir, 'agent'),
      BROKKR__AGENT__HEALTH_PORT: '0',
    });
  let agent = start();
  await connection(broker, record.id, true);
  const watching = watchConfigMaps(plane);
  return {
    ...plane,
    get agent() {
      return agent;
    },
    agentId: record.id,
    async restartAgent() {
      await agent[Symbol.asyncDispose]();
      await connection(broker, record.id, false);
      const startedAt = performance.now();
      agent = start();
      await connection(broker, record.id, true);
      return performance.now() - startedAt;
    },
    configMapValue: (name, key, value) => watching.until((map) => map.metadata.name === name && map.data?.[key] === value),
    async barePatch(name, value) {
      const body = JSON.stringify({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name, namespace: 'default' },
        data: { value },
      });
      const start = performance.now();
      const { status } = await plane.request('PATCH', `/api/v1/namespaces/default/configmaps/${name}?fieldManager=bare`, body, {
        'content-type': 'application/apply-patch+yaml',
      });
      if (status >= 300) throw new Error(`bare patch answered ${status}`);
      return performance.now() - start;
    },
    async [Symbol.asyncDispose]() {
      watching.stop();
      await agent[Symbol.asyncDispose]();
      await plane[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when the broker has a session with the agent, or has none. */
async function connection(broker: MeasuredBroker, agentId: string, wanted: boolean): Promise<void> {
  for (let waited = 0; waited < 30_000; waited += 10) {
    const { transport } = await broker.call<{ transport: string | null }>('GET', `/api/v1/agents/${agentId}`);
    if ((transport !== null) === wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`the agent did not ${wanted ? 'connect' : 'disconnect'} within 30 s`);
}

interface ConfigMap {
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
}

/** One watch for the whole bench; a patch is seen when the server tells its watchers. */
function watchConfigMaps({ controlPlane }: MeasuredControlPlane): {
  until(fits: (map: ConfigMap) => boolean): Promise<void>;
  stop(): void;
} {
  let waiting: { readonly fits: (map: ConfigMap) => boolean; readonly resolve: () => void } | undefined;
  let rest = '';
  const request = httpsRequest(
    new URL('/api/v1/namespaces/default/configmaps?watch=true', controlPlane.url),
    { ca: controlPlane.caData, headers: { authorization: `Bearer ${controlPlane.identities.ops.token}` } },
    (response) => {
      response.setEncoding('utf8');
      response.on('error', () => undefined);
      response.on('data', (chunk: string) => {
        rest += chunk;
        const lines = rest.split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines)
          if (line !== '' && waiting?.fits((JSON.parse(line) as { object: ConfigMap }).object)) waiting.resolve();
      });
    },
  );
  request.on('error', () => undefined);
  request.end();
  return {
    until: (fits) =>
      new Promise((resolve) => {
        waiting = { fits, resolve };
      }),
    stop: () => void request.destroy(),
  };
}
