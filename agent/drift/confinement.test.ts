import { beforeAll, expect, it } from 'vitest';
import { FakeClock } from '../../test/fake-clock.ts';
import { type Kube as TestKube, useKube } from '../../test/kube.ts';
import { CONFIG_MAPS, openTestKube } from '../../test/kube-client.ts';
import { until } from '../../test/kube-identity.ts';
import { Confinements } from './confinement.ts';

let server: TestKube;
beforeAll(async () => {
  server = await useKube();
});

it('asks again after a minute, then less often, and lets a kind go once it is allowed or not used any more', async () => {
  const { signal } = new AbortController();
  const namespace = await server.namespace('confinement');
  const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['list'] }];
  const { token, subject, user } = await server.identity('confinement', { rules, namespace });
  const clock = new FakeClock();
  const confined = new Confinements({ kube: openTestKube({ url: server.url, caData: server.caData, token }), clock });
  const lists = async (since: number) => (await server.auditEvents({ user, verbs: ['list'], since })).length;
  const ask = (used = true) => confined.ask(() => used, signal);
  const mark = await server.auditMark();

  expect(confined.dueInMs).toBeUndefined();
  confined.refused(CONFIG_MAPS);
  expect(confined.has('/ConfigMap')).toBe(true);
  expect(confined.dueInMs).toBe(60_000);
  await ask();
  expect(await lists(mark)).toBe(0);

  await clock.advance(60_000);
  await ask();
  expect(confined.has('/ConfigMap')).toBe(true);
  expect(confined.dueInMs).toBe(120_000);
  expect(await lists(mark)).toBe(1);

  const { body: role } = await server.request('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', {
    metadata: { name: subject.name },
    rules,
  });
  await server.request('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
    metadata: { name: subject.name },
    subjects: [subject],
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role.metadata.name },
  });
  const review = { spec: { user, resourceAttributes: { verb: 'list', resource: 'configmaps' } } };
  const reviews = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
  await until(async () => (await server.request('POST', reviews, review)).body.status.allowed, signal);
  await clock.advance(120_000);
  await ask();
  expect(confined.has('/ConfigMap')).toBe(false);
  expect(confined.dueInMs).toBeUndefined();

  confined.refused(CONFIG_MAPS);
  await ask(false);
  expect(confined.has('/ConfigMap')).toBe(false);
  expect(await lists(mark)).toBe(2);
});
