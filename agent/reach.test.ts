import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, describe, expect, it } from 'vitest';
import { openTestKube } from '../test/kube-client.ts';
import { createReach } from './reach.ts';
import { checkBroker } from './transport/check.ts';
import type { Endpoint } from './transport/endpoint.ts';

const { signal } = new AbortController();
const closing: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closing) await close();
});

async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(
    () => server.closeAllConnections(),
    () => server.close(),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What has to be reached, by what it is called, with how asking for it ends. */
async function ask(broker: string, kubeUrl: string, proxy?: string) {
  const endpoint: Endpoint = { url: new URL(broker), pak: 'brokkr_BRtest_key', ca: undefined, proxy };
  await using kube = openTestKube({ url: kubeUrl, token: 'token' });
  const links = { readEndpoint: async () => endpoint, check: (inner: AbortSignal) => checkBroker(endpoint, inner) };
  const checks = await createReach(links, kube)();
  const ends = checks.map(async ({ reached, unreached, ask: once }) => {
    return once(signal).then(
      () => reached,
      () => unreached,
    );
  });
  return await Promise.all(ends);
}

const whoAmI: RequestListener = ({ url, headers }, response) => {
  const isOurs = url === '/brokkr.v1.KeyService/CheckPak' && headers.authorization === 'brokkr_BRtest_key';
  response.writeHead(isOurs ? 200 : 401, { 'content-type': 'application/json' }).end('{}');
};
const version: RequestListener = ({ url, headers }, response) => {
  response.writeHead(url === '/version' && headers.authorization === 'Bearer token' ? 200 : 401).end('{}');
};

describe('what an agent has to reach', () => {
  it('is the broker and the API server; addresses ask DNS nothing', async () => {
    expect(await ask(await serve(whoAmI), await serve(version))).toEqual(['the broker', 'the API server']);
  });

  it('is DNS for names, too, once for each', async () => {
    const [broker, kube] = [await serve(whoAmI), await serve(version)].map((url) => url.replace('127.0.0.1', 'localhost')) as [
      string,
      string,
    ];
    expect(await ask(broker, kube)).toEqual(['the broker', 'the API server', 'DNS for localhost']);
    expect(await ask('http://broker.invalid:3000', kube)).toEqual([
      'the broker did not answer',
      'the API server',
      'DNS did not resolve broker.invalid',
      'DNS for localhost',
    ]);
  });

  it('is the name of the proxy where one is in between', async () => {
    const names = await ask('http://broker.invalid:3000', await serve(version), 'http://proxy.invalid:3128');
    expect(names).toEqual(['the broker did not answer', 'the API server', 'DNS did not resolve proxy.invalid']);
  });

  it('is not reached when something else answers: another key, a proxy without a way', async () => {
    const refuses: RequestListener = (_, response) => response.writeHead(401).end('{}');
    const gateway: RequestListener = (_, response) => response.writeHead(502).end('bad gateway');
    expect(await ask(await serve(refuses), await serve(refuses))).toEqual(['the broker did not answer', 'the API server']);
    expect(await ask(await serve(gateway), await serve(gateway))).toEqual([
      'the broker did not answer',
      'the API server did not answer',
    ]);
  });

  it('is asked over new connections, which are closed', async () => {
    let opened = 0;
    const sockets = new Set<object>();
    const counting: (answer: RequestListener) => RequestListener = (answer) => (request, response) => {
      opened += 1;
      sockets.add(request.socket);
      request.socket.once('close', () => sockets.delete(request.socket));
      answer(request, response);
    };
    const [broker, kube] = [await serve(counting(whoAmI)), await serve(counting(version))];
    await ask(broker, kube);
    await ask(broker, kube);
    expect(opened).toBe(4);
    await expect.poll(() => sockets.size).toBe(0);
  });
});
