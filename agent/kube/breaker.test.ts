import { describe, expect, it } from 'vitest';
import { FakeClock } from '../../test/fake-clock.ts';
import { startKubeProxy } from '../../test/http-proxy.ts';
import { useKube } from '../../test/kube.ts';
import { openTestKube } from '../../test/kube-client.ts';
import { Breaker, ServerDownError } from './breaker.ts';
import { classify } from './errors.ts';

const { signal } = new AbortController();

describe('Breaker', () => {
  function setUp() {
    const clock = new FakeClock();
    const moves: boolean[] = [];
    const probes: PromiseWithResolvers<boolean>[] = [];
    const probe = () => {
      const answer = Promise.withResolvers<boolean>();
      probes.push(answer);
      return answer.promise;
    };
    const breaker = new Breaker(clock, { probe, moved: (isOpen) => void moves.push(isOpen) });
    const fail = (count: number) => {
      for (let index = 0; index < count; index++) breaker.failed(new Error('no answer'));
    };
    return { clock, breaker, moves, probes, fail };
  }

  it('opens after 20 failures in a row, told once', async () => {
    const { breaker, moves, fail } = setUp();
    fail(19);
    breaker.succeeded();
    fail(19);
    await breaker.pass(signal);
    fail(5);
    expect(moves).toEqual([true]);
    await expect(breaker.pass(signal)).rejects.toThrow(ServerDownError);
  });

  it('sends one probe a second for all who wait, and closes when it is answered', async () => {
    const { breaker, clock, moves, probes, fail } = setUp();
    fail(20);
    await clock.advance(999);
    await expect(breaker.pass(signal)).rejects.toThrow(ServerDownError);
    expect(probes).toHaveLength(0);
    await clock.advance(1);
    const first = Promise.allSettled([breaker.pass(signal), breaker.pass(signal)]);
    probes[0]?.resolve(false);
    expect((await first).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(breaker.pass(signal)).rejects.toThrow(ServerDownError);
    await clock.advance(1000);
    const second = Promise.all([breaker.pass(signal), breaker.pass(signal)]);
    probes[1]?.resolve(true);
    await second;
    expect(probes).toHaveLength(2);
    expect(moves).toEqual([true, false]);
  });

  it('lets go of a caller whose signal aborts while the probe goes on for the others', async () => {
    const { breaker, clock, probes, fail } = setUp();
    fail(20);
    await clock.advance(1000);
    const stop = new AbortController();
    const impatient = breaker.pass(stop.signal);
    const patient = breaker.pass(signal);
    stop.abort(new Error('no longer needed'));
    await expect(impatient).rejects.toThrow('no longer needed');
    probes[0]?.resolve(true);
    await patient;
  });
});

describe('a client whose server is in trouble', () => {
  it('sends nothing but probes, and goes on when one is answered', async () => {
    const server = await useKube();
    let isBroken = true;
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: () => (isBroken ? { status: 503, body: 'no backend' } : undefined),
    });
    let opened = 0;
    await using kube = openTestKube({ url: proxy.url, token: server.identities.ops.token }, { down: () => opened++ });
    for (let count = 0; count < 20; count++) expect(await kube.version(signal).catch(classify)).toBe('transient');
    expect(kube.transport.isDown).toBe(true);
    const sent = proxy.count();
    await expect(kube.version(signal)).rejects.toThrow(ServerDownError);
    expect(await kube.ready(signal)).toBe(false);
    expect(proxy.count()).toBe(sent);
    isBroken = false;
    await expect.poll(() => kube.ready(signal), { timeout: 5000 }).toBe(true);
    expect(await kube.version(signal)).toMatch(/^v1\./);
    expect(proxy.requests.slice(sent, -1).every(({ path }) => path === '/readyz')).toBe(true);
    expect(opened).toBe(1);
  });

  it('is not put off by answers that are about one request', async () => {
    const server = await useKube();
    const denied = { kind: 'Status', code: 500, message: 'failed calling webhook "x": no endpoints available' };
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ path }) => (path === '/version' ? { status: 500, body: denied } : undefined),
    });
    await using kube = openTestKube({ url: proxy.url, token: server.identities.ops.token });
    for (let count = 0; count < 25; count++) await kube.version(signal).catch(() => undefined);
    expect(kube.transport.isDown).toBe(false);
  });
});
