import { mkdtemp, rm } from 'node:fs/promises';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildControlPlane } from '../../hack/kube/binaries.ts';
import { type ControlPlane, startControlPlane } from '../../hack/kube/control-plane.ts';
import { type MeasuredAgent, startMeasuredAgent } from './cluster-agent.ts';
import { cpuMs, type MeasuredBroker } from './environment.ts';

/** A real control plane, without an agent. */
export interface MeasuredControlPlane extends AsyncDisposable {
  readonly controlPlane: ControlPlane;
  readonly dir: string;
  /** CPU time that etcd and the API server have used, in milliseconds. */
  serverCpuMs(): Promise<number>;
  /** A request as the identity that is subject to RBAC and to Priority & Fairness; over kept-alive connections. */
  request(
    method: string,
    path: string,
    body?: string,
    headers?: Readonly<Record<string, string>>,
  ): Promise<{ readonly status: number; readonly body: string }>;
}

/** Starts etcd and the API server in a temporary directory. */
export async function startMeasuredControlPlane({
  audit = 'off',
}: {
  readonly audit?: 'off' | 'batch';
} = {}): Promise<MeasuredControlPlane> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-bench-kube-'));
  const stop = new AbortController();
  const progress = (line: string) => void process.stderr.write(`control plane: ${line}\n`);
  const binaries = buildControlPlane({ env: process.env, progress }, stop.signal);
  const controlPlane = await startControlPlane(
    { binaries, dir: join(dir, 'kube'), progress: () => undefined, withControllers: false, audit },
    stop.signal,
  );
  const agent = new HttpsAgent({ keepAlive: true, maxSockets: 16, ca: controlPlane.caData });
  const { token } = controlPlane.identities.ops;
  return {
    controlPlane,
    dir,
    async serverCpuMs() {
      const pids = controlPlane.pids();
      const used = await Promise.all((['etcd', 'kube-apiserver'] as const).map((name) => cpuMs(pids.get(name) ?? 0)));
      return used.reduce((sum, ms) => sum + ms, 0);
    },
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
  readonly agent: MeasuredAgent;
  /** Resolves when the ConfigMap in `default` has this value, told by a watch. */
  configMapValue(name: string, key: string, value: string, signal: AbortSignal): Promise<void>;
  /** One server-side apply of a small ConfigMap on a warm connection, in milliseconds. */
  barePatch(name: string, value: string): Promise<number>;
}

/** Starts both. */
export async function startCluster(broker: MeasuredBroker, labels: readonly string[]): Promise<MeasuredCluster> {
  const plane = await startMeasuredControlPlane();
  const agent = await startMeasuredAgent(broker, plane, { name: 'bench', labels });
  const watching = watchConfigMaps(plane);
  return {
    ...plane,
    agent,
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
