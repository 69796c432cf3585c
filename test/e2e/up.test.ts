import { execFile, spawn } from 'node:child_process';
import { chmod, copyFile, cp, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildControlPlane, programNames } from '../../hack/kube/binaries.ts';
import { freePort } from '../../hack/kube/ports.ts';
import { until } from '../kube-identity.ts';
import { temporaryDirectory } from '../processes.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BIN = join(ROOT, 'bin', 'brokkr.js');
const run = promisify(execFile);

/** How a program ended and what it wrote. */
interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

let dir: string; // of the user: home, manifests and the data of `brokkr up`
let data: string;
let port: number;
let env: NodeJS.ProcessEnv;
let kubectlPath: string;
let serving: ReturnType<typeof startBrokkr>;
let gate: string; // once this file exists, etcd starts

beforeAll(async () => {
  dir = await temporaryDirectory();
  data = join(dir, 'data');
  gate = join(dir, 'gate');
  port = await freePort();
  await chmod(dir, 0o755); // as root, the database enters as somebody else
  await mkdir(join(dir, 'home'));
  await cp(join(ROOT, 'examples'), join(dir, 'examples'), { recursive: true });
  const binaries = buildControlPlane({ env: process.env, progress: console.warn }, new AbortController().signal);
  await binaries.done;
  kubectlPath = await binaries.path('kubectl');
  const programs = join(dir, 'programs');
  await mkdir(programs);
  for (const name of programNames) {
    const path = await binaries.path(name);
    if (name !== 'etcd') await symlink(path, join(programs, name));
    // a control plane that takes its time, as one that is being built
    else await writeFile(join(programs, name), `#!/bin/sh\nwhile [ ! -e '${gate}' ]; do sleep 0.1; done\nexec '${path}' "$@"\n`);
  }
  await chmod(join(programs, 'etcd'), 0o755);
  env = {
    PATH: process.env.PATH,
    HOME: join(dir, 'home'),
    BROKKR_CONFIG: join(dir, 'home', 'contexts.json'),
    XDG_CACHE_HOME: process.env.XDG_CACHE_HOME || join(homedir(), '.cache'),
    BROKKR_KUBE_BIN: programs,
  };
});
afterAll(async () => {
  for (const pid of await processesOn(data)) signalTo(pid, 'SIGKILL');
  await until(async () => (await processesOn(data)).length === 0, AbortSignal.timeout(10_000)); // none after a good end
});

describe('brokkr up, as in the README', { timeout: 120_000 }, () => {
  it('--once: the broker answers while the control plane still starts, then the example gets healthy', async () => {
    const up = startUp({}, '--once');
    await up.line(/^broker: ready on /);
    const health = await fetch(`http://127.0.0.1:${port}/healthz`);
    expect(health.status).toBe(200);
    expect((await brokkr('get', 'agents')).code).toBe(0);
    expect(up.lines.join('\n')).not.toContain('agent: online');
    await writeFile(gate, '');
    expect(await up.ended, up.lines.join('\n')).toBe(0);
    const times = /published +\+0 ms\ndelivered +\+[\d.]+ m?s\napplied +\+[\d.]+ m?s\nhealthy +\+[\d.]+ m?s/;
    expect(up.lines.join('\n')).toMatch(times);
    expect(await processesOn(data)).toEqual([]);
  });

  // C-072
  it('serves a second terminal: the commands of the README, a change, kubectl', async () => {
    serving = startUp();
    await serving.line(/^serving /);
    expect(await readFile(join(data, 'logs', 'agent.log'), 'utf8')).toContain('agent starts'); // online is this one, not the one before
    const said = await fromReadme();
    expect(said.map(({ words }) => words.join(' '))).toEqual([
      'apply -f examples/hello --stack hello --wait',
      'status hello',
      'diff -f examples/hello --stack hello',
      'delete stack hello --wait',
    ]);
    const [apply, status, diff, remove] = said.map(({ run: call }) => call) as [Call, Call, Call, Call];

    expect(await apply()).toMatchObject({ code: 0 });
    expect(await apply()).toMatchObject({ code: 0, stdout: expect.stringContaining('stack hello unchanged') });
    expect(await diff()).toMatchObject({ code: 0, stdout: '' });

    const file = join(dir, 'examples/hello/20-config.yaml');
    await writeFile(file, (await readFile(file, 'utf8')).replace('Hello from Brokkr', 'Hello again'));
    const watch = startBrokkr(['status', 'hello', '--watch']);
    await watch.line(/^hello: generation 1/);
    expect(await diff()).toMatchObject({ code: 3, stdout: expect.stringContaining('+    <h1>Hello again</h1>') });
    expect(await apply()).toMatchObject({ code: 0, stdout: expect.stringContaining('ConfigMap hello/page configured') });
    await watch.line(/^hello: generation 2/);
    await watch.line(/local\/local .* 2\/2 +applied +healthy +4\/4/i);
    expect(await watch.stop('SIGINT')).toBe(130);
    expect(await kubectl('get', 'configmaps', '-A', '-l', 'brokkr.io/stack', '-o', 'name')).toBe('configmap/page\n');
    expect(await kubectl('get', 'configmap', 'page', '-n', 'hello', '-o', 'yaml')).toContain('Hello again');
    expect(await status()).toMatchObject({ code: 0, stdout: expect.stringMatching(/local\/local .* 2\/2/) });
    expect((await brokkr('history', 'hello')).stdout).toMatch(/2[\s\S]*1/);

    expect(await remove()).toMatchObject({ code: 0, stdout: expect.stringContaining('every agent has deleted the objects') });
    await kubectl('wait', '--for=delete', 'namespace/hello', '--timeout=30s'); // the cluster empties it first
    expect(await kubectl('get', 'configmaps', '-A', '-l', 'brokkr.io/stack', '-o', 'name')).toBe('');
  });

  it('starts again at once after kill -9, on the same port and folder', async () => {
    await serving.stop('SIGKILL'); // the kernel tells what it had started
    serving = startUp({ PATH: await pathWithoutSetpriv() });
    await serving.line(/^serving /);
    await serving.stop('SIGKILL'); // nobody tells them, as on other systems
    expect((await processesOn(data)).length).toBeGreaterThan(2);
    serving = startUp();
    await serving.line(/^serving /);
    expect(serving.lines.filter((line) => line.includes('left by a brokkr up that was killed'))).toHaveLength(2);
    expect((await brokkr('status', 'hello')).stdout).toMatch(/healthy/i);
  });

  it('refuses a folder that another one works in', async () => {
    const second = startBrokkr(['up', '--port', '0', '--data-dir', data]);
    expect(await second.ended).toBe(1);
    expect(second.lines.join('\n')).toContain(`another brokkr up (process ${serving.pid}) works in ${data}`);
  });

  it('ends in order at SIGINT and leaves nothing running', async () => {
    expect(await serving.stop('SIGINT'), serving.lines.join('\n')).toBe(0);
    expect(await processesOn(data)).toEqual([]);
  });
});

type Call = () => Promise<Ended>;

function startUp(more: NodeJS.ProcessEnv = {}, ...args: string[]) {
  return startBrokkr(['up', ...args, '--data-dir', data, '--port', String(port)], more);
}

/** Starts the program at the user's terminal and reads its lines. */
function startBrokkr(args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [BIN, ...args], {
    cwd: dir,
    env: { ...env, ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  let wake = Promise.withResolvers<void>();
  const tell = () => {
    wake.resolve();
    wake = Promise.withResolvers();
  };
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      tell();
    });
  }
  let over = false;
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      over = true;
      resolve(code);
      tell();
    });
  });
  return {
    pid: child.pid ?? 0,
    lines,
    ended,
    /** Resolves with the first line, past or future, that fits. */
    async line(fits: RegExp): Promise<string> {
      for (;;) {
        const found = lines.find((line) => fits.test(line));
        if (found !== undefined) return found;
        if (over) throw new Error(`it ended before it printed ${fits}:\n${lines.join('\n')}`);
        await wake.promise;
      }
    },
    stop(signal: NodeJS.Signals): Promise<number | null> {
      child.kill(signal);
      return ended;
    },
  };
}

async function brokkr(...args: string[]): Promise<Ended> {
  const child = run(process.execPath, [BIN, ...args], { cwd: dir, env });
  return child.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: Ended) => ({ code, stdout, stderr }),
  );
}

/** The commands of the README's second terminal, to be run in the user's folder. */
async function fromReadme(): Promise<{ readonly words: readonly string[]; readonly run: Call }[]> {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  const blocks = [...readme.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, text = '']) => text.trim().split('\n'));
  expect(blocks[0]).toEqual(['npm ci', 'npm start']);
  return (blocks[1] ?? []).map((line) => {
    const [npx, name, ...words] = line.replace(/ +#.*/, '').split(' ');
    expect([npx, name]).toEqual(['npx', 'brokkr']);
    return { words, run: () => brokkr(...words) };
  });
}

async function kubectl(...args: string[]): Promise<string> {
  const kubeconfig = join(data, 'kube', 'kubeconfigs', 'admin');
  return (await run(kubectlPath, ['--kubeconfig', kubeconfig, ...args], { env })).stdout;
}

/** Processes that were started with the folder in their arguments or settings, or work in it. */
async function processesOn(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const texts = await Promise.all([
      readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
      readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''),
      readlink(`/proc/${pid}/cwd`).catch(() => ''),
    ]);
    if (texts.some((text) => text.includes(folder))) found.push(`${pid} ${texts[0].replaceAll('\0', ' ')}`);
  }
  return found;
}

function signalTo(process_: string, signal: NodeJS.Signals): void {
  try {
    process.kill(Number.parseInt(process_, 10), signal);
  } catch {
    // it has ended
  }
}

/** A PATH on which programs cannot be bound to us, as on other systems. */
async function pathWithoutSetpriv(): Promise<string> {
  const folder = join(dir, 'bare');
  await mkdir(folder);
  await copyFile('/bin/sh', join(folder, 'sh'));
  return folder;
}
