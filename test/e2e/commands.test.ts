import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TestProcess } from '../processes.ts';
import { type AgentRecord, type Rig, startRig, until } from './rig.ts';

const BIN = fileURLToPath(new URL('../../bin/brokkr.js', import.meta.url));
let rig: Rig;
let dir: string;
const agents: AgentRecord[] = [];
const processes: TestProcess[] = [];

beforeAll(async () => {
  rig = await startRig();
  dir = await mkdtemp(join(tmpdir(), 'brokkr-commands-'));
  for (let index = 0; index < 2; index++) {
    const agent = await rig.register();
    agents.push(agent);
    processes.push(await rig.start(agent, { env: ownNamespace(agent) }));
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Objects that name no namespace go to the agent's own, so that two agents in one cluster do not meet. */
const ownNamespace = ({ namespace }: AgentRecord) => ({ BROKKR__AGENT__WATCH_NAMESPACE: namespace });
const configMap = (name: string, value: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {key: "${value}"}\n`;
const bad = (name: string) => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\nspec: {ports: [{port: 0}]}\n`;
const value = async ({ namespace }: AgentRecord, name: string) =>
  (await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`)).body.data?.key;

/** Runs the command line; rejects when it does not end with `code`. */
async function brokkr(args: readonly string[], code = 0): Promise<string> {
  const env = { PATH: process.env.PATH, HOME: dir, BROKKR_BROKER_URL: rig.broker.url, BROKKR_PAK: rig.broker.adminPak };
  const child = spawn(process.execPath, [BIN, ...args], { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr, ended] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.on('close', resolve)),
  ]);
  if (ended !== code) throw new Error(`brokkr ${args.join(' ')} ended with ${ended}\n${stdout}${stderr}`);
  return `${stdout}${stderr}`;
}

async function apply(stack: string, yaml: string, options: readonly string[] = [], code = 0): Promise<string> {
  await writeFile(join(dir, 'content.yaml'), yaml);
  return await brokkr(['apply', '--stack', stack, '-f', 'content.yaml', ...options, '--wait', '--timeout', '60s'], code);
}

describe('commands about a stack', () => {
  it('go back by themselves, say so, stay there after a restart, and are tried again', { timeout: 180_000 }, async () => {
    const [agent] = agents as [AgentRecord];
    const rules = ['--label', agent.label, '--option', 'on_failure=rollback', '--option', 'failure_deadline_seconds=30'];
    await apply('back', configMap('back', 'one'), rules);
    await apply('back', configMap('back', 'two'));
    const failed = await apply('back', `${configMap('back', 'three')}---\n${bad('back')}`, [], 5);
    expect(failed).toContain('rolled_back');
    expect(await value(agent, 'back')).toBe('two');
    const status = await brokkr(['status', 'back']);
    expect(status).toMatch(/2\/3 +rolled_back +healthy .*generation 3 failed: .*Service.*; 2 is applied again/);

    await processes[0]?.stop('SIGKILL');
    processes[0] = await rig.start(agent, { env: ownNamespace(agent) });
    const seen = await until(
      () => brokkr(['status', 'back']),
      (shown) => / yes /.test(shown),
    );
    expect(seen).toMatch(/2\/3 +rolled_back/);

    expect(await brokkr(['retry', 'back', '--wait', '--timeout', '60s'], 5)).toContain('generation 4 is the same once more');
    expect(await brokkr(['status', 'back'])).toMatch(/2\/4 +rolled_back .*generation 4 failed/);
    const { body } = await rig.broker.api<{ event_type: string; generation: number }[]>(
      'GET',
      `/api/v1/agents/${agent.id}/events`,
    );
    expect(body.filter(({ event_type }) => event_type === 'ROLLBACK').map(({ generation }) => generation)).toEqual([2, 2]);
  });

  it('bring back a generation that is named, and the last that was good, and tell it from the history', {
    timeout: 180_000,
  }, async () => {
    const [agent] = agents as [AgentRecord];
    await apply('command', configMap('command', 'one'), ['--label', agent.label]);
    await apply('command', configMap('command', 'two'));
    expect(await brokkr(['rollback', 'command', '--to', '1', '--wait'])).toContain('generation 3 is generation 1 again');
    expect(await value(agent, 'command')).toBe('one');
    expect(await brokkr(['rollback', 'command', '--wait'])).toContain('generation 4 is generation 2 again');
    expect(await value(agent, 'command')).toBe('two');
    const history = (await brokkr(['history', 'command'])).split('\n').map((line) => line.split(/ +/)[2]);
    expect(history.slice(1, 5)).toEqual(['rollback', 'rollback', 'content', 'content']);
    const now = new Date().toISOString();
    expect(await brokkr(['history', 'command', '--at', now])).toMatch(/\n4 +2 +rollback/);
  });

  it('pause one agent of two, with everything on the other going on, until resumed', { timeout: 180_000 }, async () => {
    const [here, there] = agents as [AgentRecord, AgentRecord];
    await apply('halt', configMap('halt', 'one'), ['--label', here.label, '--label', there.label]);
    expect(await brokkr(['pause', 'halt', '--agent', here.label])).toContain('paused');
    await writeFile(join(dir, 'content.yaml'), configMap('halt', 'two'));
    await brokkr(['apply', '--stack', 'halt', '-f', 'content.yaml']);
    await until(
      () => value(there, 'halt'),
      (found) => found === 'two',
    );
    const shown = await until(
      () => brokkr(['status', 'halt']),
      (lines) => /1\/2 +received, paused/.test(lines) && /2\/2 +applied/.test(lines),
    );
    expect(shown).toContain('paused: nothing is applied');
    expect(await value(here, 'halt')).toBe('one');
    expect(await brokkr(['targets', 'explain', '--stack', 'halt', '--agent', here.label])).toContain('paused');
    await brokkr(['resume', 'halt', '--agent', here.label]);
    await until(
      () => value(here, 'halt'),
      (found) => found === 'two',
    );
    expect(await brokkr(['pause', 'halt'])).toContain('paused, generation 3');
    expect(await brokkr(['set', 'halt', 'drift=detect'])).toContain('generation 4');
    expect(await brokkr(['delete', 'stack', 'halt', '--wait', '--timeout', '60s'])).toContain('every agent');
    expect(await value(here, 'halt')).toBeUndefined();
  });
});
