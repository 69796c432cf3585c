import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { mintKey } from '../../lib/pak.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A process of ours under measurement. */
export interface Measured extends AsyncDisposable {
  readonly pid: number;
  /** Resolves with the first log line that fits. */
  line(fits: (line: Readonly<Record<string, unknown>>) => boolean): Promise<Readonly<Record<string, unknown>>>;
}

/** Starts a process of ours from its sources. Disposing stops it. */
export function measure(entry: string, args: readonly string[], env: Readonly<Record<string, string>>): Measured {
  const child = spawn(process.execPath, [join(ROOT, entry), ...args], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, NODE_OPTIONS: process.env.BENCH_NODE_OPTIONS, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: Readonly<Record<string, unknown>>[] = [];
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const look of waiting) look();
  };
  createInterface({ input: child.stdout }).on('line', (text) => {
    if (process.env.BENCH_LOG) process.stderr.write(`${text}\n`);
    if (text.startsWith('{')) lines.push(JSON.parse(text));
    if (lines.length > 1000) lines.shift();
    wake();
  });
  child.once('close', wake);
  return {
    pid: child.pid ?? 0,
    line: (fits) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find(fits);
          if (found) resolve(found);
          else if (child.exitCode !== null)
            reject(new Error(`${entry} ended with ${child.exitCode}: ${JSON.stringify(lines.at(-1))}`));
          else return;
          waiting.delete(look);
        };
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return;
      const closed = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      await closed;
    },
  };
}

/** A broker with a PostgreSQL of its own. */
export interface MeasuredBroker extends AsyncDisposable {
  readonly url: string;
  readonly address: string;
  readonly pid: number;
  readonly adminPak: string;
  readonly dir: string;
  call<T>(method: string, path: string, body?: unknown, contentType?: string): Promise<T>;
}

/** Starts it on a free loopback port in a temporary directory. */
export async function startBroker(env: Readonly<Record<string, string>> = {}): Promise<MeasuredBroker> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-bench-'));
  await chmod(dir, 0o755); // as root PostgreSQL runs under another account and must get in
  const admin = mintKey();
  const process_ = measure('broker/main.ts', ['serve'], {
    BROKKR__BROKER__LISTEN: '127.0.0.1:0',
    BROKKR__BROKER__DATA_DIR: dir,
    BROKKR__BROKER__PAK_HASH: admin.hash,
    ...env,
  });
  const address = String((await process_.line((line) => line.msg === 'broker serves')).address);
  return {
    url: `http://${address}`,
    address,
    pid: process_.pid,
    adminPak: admin.pak,
    dir,
    async call(method, path, body, contentType = 'application/json') {
      const response = await fetch(`http://${address}${path}`, {
        method,
        headers: {
          authorization: admin.pak,
          'idempotency-key': randomUUID(),
          ...(body !== undefined && { 'content-type': contentType }),
        },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 500)}`);
      return (text === '' ? undefined : JSON.parse(text)) as never;
    },
    async [Symbol.asyncDispose]() {
      await process_[Symbol.asyncDispose]();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** `count` documents like those of a real application: six ConfigMaps, two Services, one Deployment, one ServiceAccount of ten. */
export function mixedDocuments(count: number, namespaces: readonly string[] = ['bench'], generation = 1): string {
  const documents: string[] = [];
  for (let index = 0; index < count; index++) {
    const namespace = namespaces[index % namespaces.length] ?? 'bench';
    const metadata = `metadata:\n  name: o-${index}\n  namespace: ${namespace}\n  labels: {app: bench, tier: t${index % 7}}\n`;
    const kind = index % 10;
    if (kind < 6) {
      documents.push(
        `apiVersion: v1\nkind: ConfigMap\n${metadata}data:\n  generation: "${generation}"\n  text: |\n${'    some configuration that a person wrote, line after line\n'.repeat(12)}`,
      );
    } else if (kind < 8) {
      documents.push(
        `apiVersion: v1\nkind: Service\n${metadata}spec:\n  selector: {app: bench-${index}}\n  ports:\n    - {name: http, port: 80, targetPort: 8080}\n    - {name: metrics, port: 9090, targetPort: 9090}\n`,
      );
    } else if (kind === 8) {
      documents.push(
        `apiVersion: apps/v1\nkind: Deployment\n${metadata}spec:\n  replicas: 0\n  selector: {matchLabels: {app: bench-${index}}}\n  template:\n    metadata: {labels: {app: bench-${index}}}\n    spec:\n      containers:\n        - name: main\n          image: registry.example.com/app:${generation}\n          ports: [{name: http, containerPort: 8080}]\n          env:\n            - {name: MODE, value: production}\n          resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}\n`,
      );
    } else documents.push(`apiVersion: v1\nkind: ServiceAccount\n${metadata}`);
  }
  return documents.join('---\n');
}

/** Publishes stacks of ten ConfigMaps each to the agents with a label. */
export async function publishSmallStacks(broker: MeasuredBroker, count: number, label: string): Promise<void> {
  for (let index = 0; index < count; index++) {
    const yaml = Array.from(
      { length: 10 },
      (_, object) =>
        `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s${index}-${object}, namespace: default}\ndata: {value: "1"}\n`,
    ).join('---\n');
    await broker.call('PUT', `/api/v1/stacks/by-name/stack-${index}/apply?label=${label}`, yaml, 'application/yaml');
  }
}

/** Resident memory of a process in bytes (Linux). */
export async function residentBytes(pid: number): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

/** CPU time a process has used, in milliseconds (Linux, clock ticks of 10 ms). */
export async function cpuMs(pid: number): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
