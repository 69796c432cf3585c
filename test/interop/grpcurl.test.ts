import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { beforeAll, describe, expect, it } from 'vitest';
import { command } from '../../hack/interop/command.ts';
import { findGrpcurl } from '../../hack/interop/grpcurl.ts';
import { configMap, type Endpoints, startEndpoints, toolOptions } from './endpoints.ts';

const signal = new AbortController().signal;
let grpcurl: string;
let endpoints: Endpoints;
beforeAll(async () => {
  grpcurl = await findGrpcurl(toolOptions, signal);
  endpoints = await startEndpoints(signal);
});

function flags(which: 'plain' | 'tls'): string[] {
  const { caFile } = endpoints[which];
  return [...(caFile === undefined ? ['-plaintext'] : ['-cacert', caFile]), '-max-time', '20'];
}

describe.each(['plain', 'tls'] as const)('grpcurl on the %s port, knowing the contract by reflection only', (which) => {
  /** Runs grpcurl with `more` flags, then `rest` (a command or a method) after the address. */
  const call = (more: readonly string[], ...rest: readonly string[]) =>
    command(grpcurl, [...flags(which), ...more, endpoints[which].target, ...rest], { env: process.env }, signal);
  const as = (pak: string) => ['-H', `authorization: ${pak}`];

  it('lists services and methods', async () => {
    const services = (await call([], 'list')).trim().split('\n');
    expect(services).toEqual(expect.arrayContaining(['brokkr.v1.AgentSync', 'brokkr.v1.StackService', 'grpc.health.v1.Health']));
    expect((await call([], 'list', 'brokkr.v1.AgentSync')).trim().split('\n')).toContain('brokkr.v1.AgentSync.Session');
  });

  it('describes services, messages and their options', async () => {
    const service = await call([], 'describe', 'brokkr.v1.AgentSync');
    expect(service).toContain('rpc Session ( stream .brokkr.v1.AgentMessage ) returns ( stream .brokkr.v1.BrokerMessage )');
    expect(await call([], 'describe', 'brokkr.v1.StackService.CreateStack')).toContain('post: "/api/v1/stacks"');
    expect(await call([], 'describe', '.brokkr.v1.Hello')).toContain('repeated uint32 versions = 1');
  });

  it('makes a unary call, and is told why when it has no key', async () => {
    const name = `grpcurl-${which}`;
    const created = await call(
      [...as(endpoints.broker.adminPak), '-d', JSON.stringify({ name })],
      'brokkr.v1.StackService/CreateStack',
    );
    expect(JSON.parse(created)).toMatchObject({ stack: { name } });
    await expect(call([], 'brokkr.v1.StackService/ListStacks')).rejects.toThrow('Code: Unauthenticated');
  });

  it('asks for health', async () => {
    expect(JSON.parse(await call([], 'grpc.health.v1.Health/Check'))).toEqual({ status: 'SERVING' });
  });

  /** An agent with something to apply, and its hello as grpcurl reads it. */
  const prepare = async (name: string) => {
    const agent = await endpoints.broker.agent(name, [name]);
    await endpoints.broker.publish(name, configMap(name), [name]);
    return {
      pak: agent.pak,
      hello: JSON.stringify({
        seq: 1,
        hello: { versions: [1], clusterUid: 'interop', processId: name, agentVersion: 'interop' },
      }),
    };
  };
  const expectTargetState = (frames: string, name: string) => {
    expect([...frames.matchAll(/^ {2}"(welcome|snapshotBegin|upsert|snapshotEnd)"/gm)].map(([, body]) => body)).toEqual([
      'welcome',
      'snapshotBegin',
      'upsert',
      'snapshotEnd',
    ]);
    expect(frames).toContain(`"agentName": "${name}"`);
    expect(frames).toContain(Buffer.from(configMap(name)).toString('base64'));
  };

  it('opens a session: hello in, welcome and target state out', async () => {
    const name = `grpcurl-session-${which}`;
    const { pak, hello } = await prepare(name);
    const bye = JSON.stringify({ seq: 2, bye: { reason: 'done' } });
    const args = [...flags(which), ...as(pak), '-d', '@', endpoints[which].target, 'brokkr.v1.AgentSync/Session'];
    const child = spawn(grpcurl, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = once(child, 'close');
    child.stdin.write(hello);
    let frames = '';
    for await (const chunk of child.stdout.setEncoding('utf8')) {
      frames += chunk;
      if (/^ {2}"snapshotEnd"[\s\S]*^}/m.test(frames) && child.stdin.writable) child.stdin.end(bye);
    }
    expect(await ended).toEqual([0, null]);
    expectTargetState(frames, name);
  });

  it('answers a hello that is the last thing the client says', async () => {
    const name = `grpcurl-half-closed-${which}`;
    const { pak, hello } = await prepare(name);
    expectTargetState(await call([...as(pak), '-d', hello], 'brokkr.v1.AgentSync/Session'), name);
  });
});
