import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { create } from '@bufbuild/protobuf';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { entryDigest, manifestDigest } from '#lib/digest.ts';
import { createYamlPool } from '#lib/yaml-pool.ts';
import { ApplyOptionsSchema, Phase } from '#proto/brokkr/v1/content_pb.js';
import { UpsertSchema } from '#proto/brokkr/v1/sync_pb.js';
import { eventually, rootOf } from '../test/agent-side.ts';
import { type Kube, useKube } from '../test/kube.ts';
import { type ScriptedBroker, ScriptedError, startScriptedBroker, welcome } from '../test/scripted-broker.ts';
import { bytes, toWire } from './session/manifest.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const yaml = createYamlPool({ maxThreads: 1 });
let kube: Kube;
let kubeconfig = '';
let dir = '';
const children: ChildProcess[] = [];

beforeAll(async () => {
  kube = await useKube();
  kubeconfig = (await kube.identity('agent', { clusterAdmin: true })).kubeconfigPath;
  dir = await mkdtemp(join(tmpdir(), 'brokkr-agent-process-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'close');
  }
});
afterAll(async () => {
  await yaml[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

/** Starts the agent as users do. Answers with its health port. */
async function startAgent(broker: { readonly url: string }, settings: Readonly<Record<string, string>> = {}) {
  const startedMs = performance.now();
  const child = spawn(process.execPath, ['agent/main.ts', 'start'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      BROKKR__AGENT__BROKER_URL: broker.url,
      BROKKR__AGENT__PAK: 'brokkr_BRtest_key',
      BROKKR__AGENT__KUBECONFIG_PATH: kubeconfig,
      BROKKR__AGENT__HEALTH_PORT: '0',
      BROKKR__AGENT__HEALTH_HOST: '127.0.0.1',
      BROKKR__AGENT__NAMESPACE: `agent-${randomUUID().slice(0, 8)}`,
      BROKKR__AGENT__DATA_DIR: dir,
      ...settings,
    },
  });
  children.push(child);
  const log: { msg: string; [field: string]: unknown }[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => log.push(JSON.parse(line)));
  const logged = (msg: string) => log.find((line) => line.msg === msg);
  await eventually(() => logged('health port is open') !== undefined || child.exitCode !== null);
  const url = `http://${logged('health port is open')?.address}`;
  const get = async (path: string) => {
    const response = await fetch(url + path);
    return { status: response.status, text: await response.text() };
  };
  return { child, startedMs, log, get };
}

async function upsertOf(stackId: string, generation: bigint, text: string) {
  const salt = new Uint8Array(16).fill(3);
  const { manifest, documents } = await yaml.publish({ text, salt, validation: 'full' }, new AbortController().signal);
  return create(UpsertSchema, {
    ...{ stackId, stackName: 'test', generation, salt, deploymentObjectId: randomUUID() },
    manifestDigest: Uint8Array.from(manifestDigest(manifest)),
    optionsDigest: new Uint8Array(32),
    options: create(ApplyOptionsSchema),
    manifest: toWire(manifest),
    blobs: documents.map((document) => ({
      digest: bytes(document.sourceDigest),
      data: Uint8Array.from(Buffer.from(document.text)),
    })),
  });
}

const phases = (broker: ScriptedBroker) =>
  broker.sessions.flatMap((session) => session.said('status').flatMap(({ items }) => items.map(({ phase }) => phase)));

describe('the agent process', () => {
  it('starts, applies what it is sent, reports, and after kill -9 resumes with everything it had', async () => {
    await using broker = await startScriptedBroker();
    const namespace = await kube.namespace('agent');
    const inventory = `agent-${randomUUID().slice(0, 8)}`;
    const agent = await startAgent(broker, { BROKKR__AGENT__NAMESPACE: inventory });
    const identifying = await broker.session(0);
    await eventually(() => identifying.said('bye').length === 1);
    const session = await broker.session(1);
    await eventually(() => session.said('ping').length > 0);
    const firstHeartbeatMs = performance.now() - agent.startedMs;
    expect(session.hello).toMatchObject({ facts: { clusterWide: true, capabilities: { agent_name: 'DEFAULT' } } });
    expect(session.hello.facts?.kubernetesVersion).toMatch(/^v1\./);

    const stackId = randomUUID();
    const text = `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: hello\n  namespace: ${namespace}\ndata:\n  key: value\n`;
    const upsert = await upsertOf(stackId, 1n, text);
    session.say({ case: 'upsert', value: upsert });
    await eventually(() => phases(broker).includes(Phase.APPLIED));
    expect(await kube.kubectl('get', 'configmap', 'hello', '-n', namespace, '-o', 'jsonpath={.data.key}')).toBe('value');
    await eventually(() => session.said('events').length > 0);
    expect(session.said('events')[0]!.events[0]).toMatchObject({ stackId, generation: 1n, eventType: 'APPLY', success: true });
    expect(await agent.get('/readyz')).toEqual({ status: 200, text: 'ok\n' });
    expect((await agent.get('/healthz')).status).toBe(200);
    expect(JSON.parse((await agent.get('/health')).text)).toMatchObject({
      status: 'ready',
      session: { state: 'up', transport: 'stream' },
      kubernetes: { reachable: true },
      stacks: [{ id: stackId, phase: 'applied' }],
    });
    const metrics = (await agent.get('/metrics')).text;
    expect(metrics).toContain('brokkr_agent_session_up{tier="stream"} 1');
    expect(metrics).toMatch(/brokkr_agent_kubernetes_operations_total\{operation="apply",code="20[01]"\}/);
    const rss = Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${agent.child.pid}/status`, 'utf8'))?.[1]) / 1024;
    process.stderr.write(
      `agent: first heartbeat after ${Math.round(firstHeartbeatMs)} ms, ${Math.round(rss)} MiB after an apply\n`,
    );

    agent.child.kill('SIGKILL');
    await once(agent.child, 'close');
    const restartedMs = performance.now();
    await startAgent(broker, { BROKKR__AGENT__NAMESPACE: inventory });
    const resumed = await broker.session(2);
    await eventually(() => resumed.said('ping').length > 0);
    process.stderr.write(`agent: first heartbeat of a restart after ${Math.round(performance.now() - restartedMs)} ms\n`);
    expect(resumed.hello.processId).not.toBe(session.hello.processId);
    expect(resumed.hello).toMatchObject({ installId: session.hello.installId, clusterUid: session.hello.clusterUid });
    expect(resumed.hello.resume).toMatchObject({ incarnation: 'inc-1', entries: 1, bootId: session.hello.resume!.bootId });
    const entry = entryDigest(stackId, 1n, upsert.manifestDigest, upsert.optionsDigest);
    expect(Buffer.from(resumed.hello.resume!.rootDigest).equals(rootOf([[stackId, entry]]))).toBe(true);
  });

  it('ends in order when told to, and says goodbye', async () => {
    await using broker = await startScriptedBroker();
    const agent = await startAgent(broker);
    await eventually(() => broker.sessions.some((session) => session.said('ping').length > 0));
    const session = broker.sessions.at(-1)!;
    agent.child.kill('SIGTERM');
    const [code] = await once(agent.child, 'close');
    expect(code).toBe(0);
    expect(session.said('bye')).toHaveLength(1);
    expect(agent.log.at(-1)!.msg).toBe('agent has stopped');
  });

  it('stands by and says why while it is inactive', async () => {
    await using broker = await startScriptedBroker();
    broker.onHello = (session) => {
      if (broker.sessions.length > 1) session.end(new ScriptedError('agent_inactive', 9, 'the agent was set inactive', 1));
      else session.say(welcome());
    };
    const agent = await startAgent(broker, { BROKKR__AGENT__DATA_DIR: join(dir, 'inactive') });
    await eventually(() => agent.log.some(({ msg }) => msg.startsWith('agent may not act')));
    const state = JSON.parse((await agent.get('/health')).text);
    expect(state.session).toMatchObject({ state: 'waiting', last_error: 'the agent is inactive: the agent was set inactive' });
  });

  it('says what its start waits for', async () => {
    await using broker = await startScriptedBroker();
    broker.onHello = (session) => session.end(new ScriptedError('unauthorized', 16, 'no such key'));
    const agent = await startAgent(broker, { BROKKR__AGENT__DATA_DIR: join(dir, 'waiting') });
    await eventually(() => agent.log.some(({ msg }) => msg.startsWith('agent may not act')));
    expect(await agent.get('/readyz')).toMatchObject({ status: 503, text: expect.stringContaining('no such key') });
    expect((await agent.get('/healthz')).status).toBe(200);
    expect(JSON.stringify(agent.log)).not.toContain('brokkr_BRtest_key');
  });

  it('reports every problem of its settings at once', async () => {
    const child = spawn(process.execPath, ['agent/main.ts', 'start'], {
      cwd: ROOT,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, BROKKR__AGENT__POLLING_INTERVAL: '1h', BROKKR__AGENT__TRANPORT: 'poll' },
    });
    let text = '';
    child.stderr.on('data', (chunk) => {
      text += chunk;
    });
    const [code] = await once(child, 'close');
    expect(code).toBe(1);
    expect(text).toContain('did you mean BROKKR__AGENT__TRANSPORT?');
    expect(text).toContain('BROKKR__AGENT__POLLING_INTERVAL');
  });
});
