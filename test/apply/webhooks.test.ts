import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { startKubeProxy } from '../http-proxy.ts';
import { configMap, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';
import { startWebhook } from './webhook.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('webhooks');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const hooked = (name: string, hook: string, value = 'a') => configMap(name, { key: value }, { labels: { hooked: hook } });

describe('an admission webhook', () => {
  it('T38 that denies: reported with its name and message, the others are applied; a denied update stops everything', async () => {
    const { server, namespace } = rig;
    const decide = ({ metadata }: { metadata: { name: string } }) =>
      metadata.name === 'denied' ? { message: 'not on a Friday' } : {};
    await using agent = await rig.start();
    const first = await rig.sync(agent, yaml(hooked('denied', 'denies'), configMap('beside')));
    await using hook = await startWebhook(server, { name: 'denies', namespace, kind: 'Validating', decide });
    const why = { state: 'rejected', reason: 'denied', message: expect.stringMatching(`${hook.name}.*not on a Friday`) };

    const update = await rig.sync(agent, yaml(hooked('denied', 'denies', 'b'), configMap('beside', { key: 'b' })), {
      after: first,
    });
    expect(rig.phase(update)).toBe(Phase.FAILED);
    expect(rig.told(update, 'denied')).toMatchObject(why);
    expect((await rig.get(rig.path('configmaps', 'beside'))).data).toEqual({ key: 'a' });

    await server.request('DELETE', rig.path('configmaps', 'denied'));
    const create = await rig.sync(agent, yaml(hooked('denied', 'denies'), configMap('other')));
    expect(rig.told(create, 'denied')).toMatchObject(why);
    await rig.get(rig.path('configmaps', 'other'));
  });

  it('T38 that is down: tried again until it is there, and nothing else waits for it', async () => {
    const { server, namespace } = rig;
    await using hook = await startWebhook(server, { name: 'down', namespace, kind: 'Validating', decide: () => ({}) });
    await using agent = await rig.start();
    await hook.down();
    const target = await rig.sync(agent, yaml(hooked('waits', 'down'), configMap('does-not-wait')));
    expect(rig.phase(target)).toBe(Phase.FAILED);
    expect(rig.told(target, 'waits')).toMatchObject({ state: 'retrying', reason: 'webhook_unavailable' });
    await rig.get(rig.path('configmaps', 'does-not-wait'));
    await hook.up();
    await rig.broker.applied(target);
    expect((await rig.get(rig.path('configmaps', 'waits'))).data).toEqual({ key: 'a' });
  });

  it('T38 that changes what we set: applied once, no drift without end, not after a new version either', async () => {
    const { server, namespace, broker } = rig;
    const patch = [{ op: 'replace', path: '/data/key', value: 'changed by the webhook' }];
    const decide = ({ metadata }: { metadata: { name: string } }) => (metadata.name === 'changed' ? { patch } : {});
    await using _hook = await startWebhook(server, { name: 'mutates', namespace, kind: 'Mutating', decide });
    const path = rig.path('configmaps', 'changed');
    const text = (value: string) => yaml(hooked('changed', 'mutates', value), configMap('tells'));
    await using agent = await rig.start();
    let target = await rig.sync(agent, text('a'));
    for (const value of ['b', 'c']) {
      expect((await rig.get(path)).data).toEqual({ key: 'changed by the webhook' });
      // Once the watch has led to the correction of the neighbour, it has told of our object too.
      const mark = await server.auditMark();
      const before = rig.corrections(target).length;
      await server.request('DELETE', rig.path('configmaps', 'tells'));
      await broker.until('corrected', () => rig.corrections(target).length > before);
      expect(rig.corrections(target).at(-1)).toMatchObject({ counts: { created: 1, configured: 0 } });
      const calls = await rig.calls(mark, 'configmaps', 'patch');
      expect(calls.map(({ objectRef }) => objectRef?.name)).toEqual(['tells']);
      target = await rig.sync(agent, text(value), { after: target });
      expect(rig.event(target)).toMatchObject({ success: true, counts: { failed: 0 } });
      expect(rig.told(target, 'changed')).toBeUndefined(); // what it took from us is no conflict to tell of
    }
  });

  it('T38 without support for dry-runs: cannot be registered on this server, and its answer to a dry-run is no refusal', async () => {
    const { server, namespace, identity, broker } = rig;
    const webhook = {
      name: 'old.example.org',
      admissionReviewVersions: ['v1'],
      sideEffects: 'Some',
      clientConfig: { url: 'https://x' },
    };
    const apiVersion = 'admissionregistration.k8s.io/v1';
    const config = { apiVersion, kind: 'ValidatingWebhookConfiguration', metadata: { name: 'old' }, webhooks: [webhook] };
    const answer = await server.request('POST', `/apis/${apiVersion}/validatingwebhookconfigurations`, config);
    expect(answer).toMatchObject({ status: 422, body: { message: expect.stringContaining('sideEffects') } });

    const message = 'admission webhook "old.example.org" does not support dry run';
    const body = { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason: 'BadRequest', code: 400, message };
    await using proxy = await startKubeProxy({
      ...{ target: server.url, ca: server.caData },
      onRequest: (request) => (request.path.includes('dryRun=All') ? { status: 400, body } : undefined),
    });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const first = await rig.sync(agent, configMap('no-dry-run'));
    const second = await rig.sync(agent, configMap('no-dry-run', { key: 'b' }), { after: first });
    expect(rig.phase(second)).toBe(Phase.APPLIED);
    expect(proxy.requests.filter(({ path }) => path.includes('dryRun=All'))).toHaveLength(1);
  });
});
