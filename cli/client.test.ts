import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { create, type JsonObject } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { aborted } from '#lib/signal.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import { AgentStackStatusSchema, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Client, createClient } from './client.ts';
import { listRest } from './output.ts';
import { standingOf, statusChanges, untilHealthy } from './wait.ts';

const never = new AbortController().signal;
const id = '3b9f6d3c-2b51-4f0a-8e55-6b7a3a0c7c10';
let server: Server;
let client: Client;
let script: ((signal: AbortSignal) => AsyncGenerator<JsonObject>)[] = [];

/** The far end is Connect's own server, so that our framing is judged by somebody else's. */
beforeAll(async () => {
  const adapter = connectNodeAdapter({
    routes: (router) =>
      router.service(StackService, {
        getStack: (request, { requestHeader }) => {
          expect(requestHeader.get('authorization')).toBe('Bearer the-key');
          return { stack: { id: request.id, name: 'größe', generation: 9_007_199_254_740_993n } };
        },
        findStack: ({ name }) => {
          if (name === 'bare') throw new ConnectError('too much', Code.ResourceExhausted);
          const value = { code: 'stack_not_found', message: `no stack named ${name}`, details: { name } };
          throw new ConnectError('x', Code.NotFound, undefined, [{ desc: ErrorSchema, value }]);
        },
        async *watchStackStatus(_request, { signal }) {
          const next = script.shift();
          for await (const agent of next?.(signal) ?? []) {
            yield { status: { stack: { id }, agents: [create(AgentStackStatusSchema, agent)] } };
          }
        },
      }),
    fallback: ({ url = '' }, response) => {
      const { pathname, searchParams } = new URL(url, 'http://x');
      const answer = (status: number, body: string, headers: Record<string, string> = {}) => {
        response.writeHead(status, { 'content-type': 'application/json', ...headers });
        response.end(body);
      };
      const at = Number(searchParams.get('page_token') ?? 0);
      const next = { link: `</api/v1/pages?page_token=${at + 1}&limit=2>; rel="next"` };
      if (pathname === '/api/v1/pages') answer(200, JSON.stringify([at * 2, at * 2 + 1]), at < 2 ? next : {});
      else if (pathname === '/api/v1/refused') answer(403, '{"code":"forbidden","message":"not yours"}');
      else answer(502, '<html>', { 'content-type': 'text/html' });
    },
  });
  server = createServer(adapter).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = await createClient({ broker_url: url, pak: 'the-key' }, { clock: systemClock });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe('client', () => {
  it('calls with the key and keeps long numbers exact', async () => {
    const { stack } = await client.call(StackService.method.getStack, { id }, never);
    expect(stack).toMatchObject({ id, name: 'größe', generation: 9_007_199_254_740_993n });
  });

  it('throws the code, message and details of the broker', async () => {
    await expect(client.call(StackService.method.findStack, { name: 'x' }, never)).rejects.toMatchObject({
      code: 'stack_not_found',
      message: 'no stack named x',
      details: { name: 'x' },
      exitCode: 1,
    });
    await expect(client.call(StackService.method.findStack, { name: 'bare' }, never)).rejects.toMatchObject({
      code: 'resource_exhausted',
      message: 'too much',
    });
    await expect(client.rest('GET', '/api/v1/refused', never)).rejects.toMatchObject({ code: 'forbidden', message: 'not yours' });
  });

  it('follows the pages of a REST list up to the limit', async () => {
    expect(await listRest(client, '/api/v1/pages', 5, never)).toEqual({ items: [0, 1, 2, 3, 4], more: true });
    expect(await listRest(client, '/api/v1/pages', 10, never)).toEqual({ items: [0, 1, 2, 3, 4, 5], more: false });
  });

  it('says who answered when it was no broker, and how to go on when nobody did', async () => {
    await expect(client.rest('GET', '/elsewhere', never)).rejects.toMatchObject({ code: 'not_a_broker' });
    const nobody = await createClient({ broker_url: 'http://127.0.0.1:2' }, { clock: systemClock });
    await expect(nobody.call(StackService.method.getStack, { id }, never)).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('ECONNREFUSED'),
      hint: expect.stringContaining('brokkr up'),
    });
  });
});

describe('watch', () => {
  it('ends the call when its reader leaves', async () => {
    script = [
      async function* (signal) {
        yield { agentName: 'only' };
        await aborted(signal).then(left.resolve);
      },
    ];
    const left = Promise.withResolvers<void>();
    for await (const { status } of client.watch(StackService.method.watchStackStatus, { stackId: id }, never)) {
      expect(status?.agents[0]?.agentName).toBe('only');
      break;
    }
    await left.promise;
  });
});

describe('statusChanges', () => {
  it('dials again after a stream ends, and passes on what the broker refuses', async () => {
    script = [
      async function* () {
        yield { agentName: 'first' };
      },
      async function* () {
        yield { agentName: 'second' };
        const value = { code: 'stack_not_found', message: 'gone' };
        throw new ConnectError('x', Code.NotFound, undefined, [{ desc: ErrorSchema, value }]);
      },
    ];
    const seen: string[] = [];
    const follow = async () => {
      for await (const { agents } of statusChanges(client, id, systemClock, never)) seen.push(agents[0]?.agentName ?? '');
    };
    await expect(follow()).rejects.toMatchObject({ code: 'stack_not_found' });
    expect(seen).toEqual(['first', 'second']);
  });
});

describe('untilHealthy', () => {
  const wait = (timeoutMs: number) => untilHealthy(client, { stackId: id, generation: 2n, timeoutMs }, systemClock, never);
  const old = { agentId: 'a', desiredGeneration: 2n, receivedGeneration: 1n, appliedGeneration: 1n };
  const now = { agentId: 'a', desiredGeneration: 2n, receivedGeneration: 2n, appliedGeneration: 2n };
  const states = (...agents: object[]) => [
    async function* () {
      for (const agent of agents) yield agent as unknown as JsonObject;
    },
  ];

  it('waits for the generation that was published, not for an older one', async () => {
    script = states(
      { ...old, phase: Phase.APPLIED, health: Health.HEALTHY },
      { ...now, phase: Phase.APPLIED, health: Health.DEGRADED },
      { ...now, phase: Phase.APPLIED, health: Health.HEALTHY },
    );
    await expect(wait(10_000)).resolves.toMatchObject({ kind: 'healthy' });
  });

  it('ends at once when an agent refuses', async () => {
    script = states({ ...now, appliedGeneration: 1n, phase: Phase.REFUSED });
    await expect(wait(10_000)).resolves.toMatchObject({ kind: 'failed', failed: [{ agentId: 'a' }] });
  });

  it('names the agents that are late, and apart from them those that fail', async () => {
    script = states({ ...old, phase: Phase.PENDING });
    await expect(wait(300)).resolves.toMatchObject({ kind: 'timeout', pending: [{ agentId: 'a' }], failed: [] });
    script = states({ ...now, appliedGeneration: 1n, phase: Phase.FAILED });
    await expect(wait(300)).resolves.toMatchObject({ kind: 'timeout', failed: [{ agentId: 'a' }] });
  });

  it('does not take the failure of an older generation for one of this', () => {
    const agent = create(AgentStackStatusSchema, { ...old, phase: Phase.FAILED });
    expect(standingOf(agent, 2n)).toBe('pending');
    expect(standingOf(agent, 1n)).toBe('failing');
  });
});
