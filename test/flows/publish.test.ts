import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { healthyAt, type Rig, startRig, until } from '../e2e/rig.ts';
import { openTestDatabase } from '../postgres.ts';
import { temporaryDirectory } from '../processes.ts';

const BIN = fileURLToPath(new URL('../../bin/brokkr.js', import.meta.url));
let rig: Rig;
let dir: string;
beforeAll(async () => {
  rig = await startRig();
  dir = await temporaryDirectory();
});

const WEB_TO_DB = '{ id: web-db, from: web, to: db, ports: 5432 }';
const WORLD_TO_DB = '{ id: world-db, from: world, to: db, ports: 5432 }';
/** A shop in a namespace: anybody to the web on 8080, and what is given. */
const flowSet = (name: string, namespace: string, ...flows: readonly string[]) => `apiVersion: net.brokkr.dev/v1
kind: FlowSet
metadata: { name: ${name} }
spec:
  defaults: { deny: [ingress, egress], dns: true, protocol: TCP }
  zones: [{ name: app, namespace: ${namespace} }]
  endpoints:
    web: { zone: app, pods: { app: web } }
    db: { zone: app, pods: { app: db } }
    world: { any: true }
    api: { builtin: kube-api }
  flows:
    - { id: world-web, from: world, to: web, ports: 8080 }
    - { id: web-api, from: web, to: api, kind: control }
${flows.map((flow) => `    - ${flow}\n`).join('')}`;

/** Publishes a flow set; rejects when that does not end with `code`. */
async function publish(set: string, options: readonly string[], code = 0): Promise<string> {
  const file = join(dir, 'set.yaml');
  await writeFile(file, set);
  const env = { PATH: process.env.PATH, HOME: dir, BROKKR_BROKER_URL: rig.broker.url, BROKKR_PAK: rig.broker.adminPak };
  const child = spawn(process.execPath, [BIN, 'flows', 'publish', '-f', file, ...options], { cwd: dir, env });
  const ended = new Promise((resolve) => child.on('close', resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect(await ended, `${stdout}${stderr}`).toBe(code);
  return `${stdout}${stderr}`;
}

const stackNamed = async (name: string) =>
  (await rig.broker.api<{ id: string; generation: number; options: object }>('GET', `/api/v1/stacks/by-name/${name}`)).body;
const policies = async (namespace: string) => {
  const { body } = await rig.kube.request('GET', `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`);
  return body.items.map(({ metadata }: { metadata: { name: string } }) => metadata.name) as string[];
};

describe('brokkr flows publish', () => {
  it('publishes for the facts of the agent, asks before something is gained or lost, and confirms on the agent', async () => {
    const namespace = await rig.kube.namespace('shop');
    const agent = await rig.register();
    await rig.start(agent);
    await until(
      () => rig.broker.api<{ network: unknown }>('GET', `/api/v1/agents/${agent.id}`),
      ({ body }) => body.network !== null,
    );
    const target = ['--target', agent.label, '--confirm-seconds', '20'];
    const set = flowSet('shop', namespace, WEB_TO_DB);
    expect(await publish(set, [...target, '--dry-run'], 3)).toMatch(
      /published for the first time: .* in \d+ groups of connections/,
    );
    expect(await publish(set, target)).toContain('stack shop created: generation 1, 1 agent');
    const { id, options } = await stackNamed('shop');
    expect(options).toMatchObject({ confirm_seconds: 20, adoption: 'refuse' });
    const status = await rig.status(id, healthyAt(1));
    expect(status.message).toBe('confirmed: the broker and the API server answered');
    expect(await policies(namespace)).toEqual(['shop.db', 'shop.default-deny', 'shop.web']);
    const again = await publish(set, target);
    expect(again).toContain('stack shop unchanged: generation 1');
    expect(again).not.toMatch(/^ {2}[+-]/m);

    const wider = flowSet('shop', namespace, WEB_TO_DB, WORLD_TO_DB);
    const refused = await publish(wider, target, 3);
    expect(refused).toContain(`+ any-other-namespace/any-other-pod → ${namespace}/db TCP 5432  (gained from an untrusted zone)`);
    expect(refused).toContain('--approve-gained agrees');
    expect((await stackNamed('shop')).generation).toBe(1);
    expect(await publish(wider, [...target, '--approve-gained'])).toContain('stack shop updated: generation 2');

    const narrower = flowSet('shop', namespace);
    expect(await publish(narrower, [...target, '--approve-gained'], 3)).toContain(
      `- ${namespace}/web → ${namespace}/db TCP 5432  (lost for a required flow)`,
    );
    expect(await publish(narrower, [...target, '--yes'])).toContain('stack shop updated: generation 3');
    await rig.status(id, healthyAt(3));
  }, 120_000);

  it('makes a stack for each group of agents with equal facts, and takes away one that no cluster needs any more', async () => {
    const agents = [await rig.register(), await rig.register(), await rig.register()];
    const [label] = agents.map((agent) => agent.label);
    await using db = await openTestDatabase(rig.databaseUrl);
    const tell = (id: string, serviceIp: string) =>
      db.query('update agent set network = $2 where id = $1', [id, JSON.stringify({ apiServer: { serviceIp, ports: [443] } })]);
    for (const { id } of agents.slice(1)) await rig.broker.api('POST', `/api/v1/agents/${id}/labels`, { agent_id: id, label });
    for (const [index, { id }] of agents.entries()) await tell(id, index === 0 ? '10.43.0.1' : '10.96.0.1');
    const set = flowSet('fleet', 'fleet', WEB_TO_DB);
    const target = ['--target', label ?? ''];
    const first = await publish(set, target);
    const names = [...first.matchAll(/stack (fleet-[0-9a-f]{8}) created: generation 1, (\d) agent/g)];
    expect(names.map(([, , reached]) => reached).sort()).toEqual(['1', '2']);
    expect(await publish(set, target)).not.toMatch(/created|updated/);
    for (const { id } of agents) await tell(id, '10.96.0.1');
    const second = await publish(set, target);
    expect(second).toContain('stack fleet created: generation 1, 3 agents');
    expect(second.match(/no cluster needs it any more/g)).toHaveLength(2);
    expect(await publish(set, target)).not.toMatch(/created|updated|no cluster/);
  });

  it('takes declared facts for all agents of the labels, and says when there is no agent to ask', async () => {
    const facts = join(dir, 'facts.yaml');
    await writeFile(facts, 'apiVersion: net.brokkr.dev/v1\nkind: ClusterFacts\nspec: { podCIDRs: [10.42.0.0/16] }\n');
    const set = flowSet('declared', 'declared', WEB_TO_DB);
    expect(await publish(set, ['--target', 'nobody-has-it', '--facts', facts])).toContain(
      'stack declared created: generation 1, 0 agents',
    );
    expect(await publish(set, ['--target', 'nobody-has-it'], 1)).toContain('no agent has the label nobody-has-it');
  });
});
