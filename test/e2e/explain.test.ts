import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { startBroker, type TestBroker } from '../processes.ts';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig } from './rig.ts';

const BIN = fileURLToPath(new URL('../../bin/brokkr.js', import.meta.url));
let rig: Rig;
/** Another replica on the same database. */
let other: TestBroker;

beforeAll(async () => {
  rig = await startRig();
  other = await startBroker({ databaseUrl: rig.databaseUrl });
});

/** Runs the real program against a replica. */
function brokkr(broker: TestBroker, ...args: readonly string[]) {
  const env = { PATH: process.env.PATH, BROKKR_BROKER_URL: broker.url, BROKKR_PAK: rig.broker.adminPak };
  return new Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }>((resolve) => {
    execFile(process.execPath, [BIN, ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

async function applied(agent: AgentRecord, stack: string) {
  const namespace = await rig.kube.namespace('explained');
  const { id } = await rig.publish(stack, `${configMap(namespace, 'one')}---\n${configMap(namespace, 'two')}`, agent.label);
  await rig.status(id, healthyAt(1));
  return namespace;
}

describe.each(['stream', 'poll'])('brokkr explain with an agent on the tier %s', (tier) => {
  it('tells of all objects, and of one everything, at any replica; offline what the broker knows', async () => {
    const agent = await rig.register();
    const process = await rig.start(agent, { env: { BROKKR__AGENT__TRANSPORT: tier } });
    const stack = `explained-${tier}`;
    const namespace = await applied(agent, stack);

    for (const broker of [rig.broker, other]) {
      const all = await brokkr(broker, 'explain', stack);
      expect(all).toMatchObject({ code: 0, stderr: '' });
      expect(all.stdout).toContain(`${stack} on test/${agent.label}: generation 1/1, applied, healthy`);
      expect(all.stdout).toMatch(/^OBJECT +STATE +HEALTH +SINCE +WHY$/m);
      for (const name of ['one', 'two'])
        expect(all.stdout).toMatch(new RegExp(`^ConfigMap ${namespace}/${name} +in_sync +healthy`, 'm'));
    }

    const one = await brokkr(other, 'explain', stack, 'configmap/one', '-n', namespace, '--agent', agent.label);
    expect(one).toMatchObject({ code: 0, stderr: '' });
    expect(one.stdout).toContain(`ConfigMap ${namespace}/one: it is as wanted`);
    for (const heading of ['State', 'Wanted', 'Live', 'Health', 'Differences', 'Written by', 'Policies'])
      expect(one.stdout.split('\n')).toContain(heading);
    expect(one.stdout).toMatch(/by generation 1, version v1, digest [0-9a-f]{32}, as applied/);
    expect(one.stdout).toContain('drift: correct (default)');

    const json = await brokkr(rig.broker, 'explain', stack, 'ConfigMap', '-o', 'json');
    expect(JSON.parse(json.stdout)).toMatchObject({
      status: { agent_id: agent.id },
      unanswered: null,
      objects: [{ status: { name: 'one', state: 'in_sync' }, wanted: 'yes' }, { status: { name: 'two' } }],
      next_page_token: '',
    });
    expect(await brokkr(rig.broker, 'explain', stack, 'secret/none')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('object_not_found'),
    });

    await process.stop();
    await expect
      .poll(async () => (await brokkr(rig.broker, 'explain', stack)).stderr, { timeout: 20_000 })
      .toMatch(/the agent has no session \(last heard of at .*\): what follows is what the broker knows/);
    const offline = await brokkr(rig.broker, 'explain', stack, '-n', namespace);
    expect(offline.code).toBe(5);
    expect(offline.stdout).toMatch(new RegExp(`^ConfigMap ${namespace}/one +- +unknown`, 'm'));
  });
});

it('brokkr explain takes no object that it cannot read', async () => {
  expect(await brokkr(rig.broker, 'explain', 'nothing')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('stack_not_found'),
  });
});
