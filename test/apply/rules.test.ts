import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RulesError } from '../../agent/rules.ts';
import type { Rules } from '../../lib/rules.ts';
import { readRules } from '../../lib/rules-file.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('rules');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const start = (rules: () => Rules | undefined) => rig.start({ rules });
const statusOf = (path: string) => rig.server.request('GET', path).then(({ status }) => status);
const configMap = (name: string, labels = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}${labels === '' ? '' : `, labels: {${labels}}`}}\n`;
const deployment = (name: string, image: string, more = '') => `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, namespace: ${rig.namespace}, labels: {app.kubernetes.io/name: ${name}, team: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec:
      ${more}
      containers:
        - name: web
          image: ${image}
          resources: {limits: {cpu: 500m, memory: 1Gi}}
`;

describe('the rules of the environment', () => {
  const example = new URL('../../examples/rules/environment.yaml', import.meta.url);
  const { rules: published } = readRules(readFileSync(example, 'utf8'));
  const rules: () => Rules = () => ({ ...published, namespaces: { allowed: [rig.namespace] } });

  it.each(['full', 'none'] as const)(
    'refuse everything against them at once, before anything is written (validation %s)',
    async (validation) => {
      await using agent = await start(rules);
      const text = [
        configMap(`fine-${validation}`),
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: elsewhere, namespace: default}\n',
        'apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: brokkr-test-rules}\nrules: []\n',
        deployment('large', 'evil.example.org/web:1', 'hostNetwork: true')
          .replace('replicas: 2', 'replicas: 21')
          .replace('500m', '5'),
        'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bare}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: nginx}]}}\n',
      ].join('---\n');
      const target = await rig.broker.publish(text, { validation });
      const mark = await rig.server.auditMark();
      agent.reconciler.offer(target);
      await rig.broker.until('refused', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
      const [event] = rig.broker.eventsOf(target);
      expect(event).toMatchObject({ eventType: 'VALIDATE', success: false });
      expect(event?.objects.map(({ kind, name, reason, path }) => `${kind} ${name} ${reason} ${path}`).sort()).toEqual(
        [
          'ClusterRole brokkr-test-rules forbidden_kind /kind',
          'ConfigMap elsewhere forbidden_namespace /metadata/namespace',
          'Deployment bare above_ceiling /spec/template/spec/containers/0/resources/limits/cpu',
          'Deployment bare above_ceiling /spec/template/spec/containers/0/resources/limits/memory',
          'Deployment bare missing_label /metadata/labels/app.kubernetes.io~1name',
          'Deployment bare missing_label /metadata/labels/team',
          'Deployment large above_ceiling /spec/replicas',
          'Deployment large above_ceiling /spec/template/spec/containers/0/resources/limits/cpu',
          'Deployment large above_ceiling /spec/template/spec/containers/0/resources/requests/cpu',
          'Deployment large forbidden_image /spec/template/spec/containers/0/image',
          'Deployment large rule:no-host-network ',
        ].sort(),
      );
      const writes = await rig.server.auditEvents({
        user: rig.identity.user,
        since: mark,
        verbs: ['patch', 'create', 'delete', 'update'],
      });
      expect(writes.filter(({ objectRef }) => objectRef?.name?.startsWith('brokkr-inv-') !== true)).toEqual([]);
    },
  );

  it('let through what keeps them, and are asked again when they change', async () => {
    let current = rules();
    await using agent = await start(() => current);
    const good = await rig.broker.publish(deployment('good', 'registry.example.com/web:1'));
    agent.reconciler.offer(good);
    await rig.broker.applied(good);
    const target = await rig.broker.publish(deployment('good', 'registry.example.org/web:2'), { after: good });
    agent.reconciler.offer(target);
    await rig.broker.until('refused', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    current = { ...current, images: { allowed: ['registry.example.org/'] } };
    agent.reconciler.rulesChanged();
    await rig.broker.applied(target);
  });

  it('apply nothing new while they are invalid, but keep what is there, and go on once they are right', async () => {
    let problem: string | undefined;
    const current = () => {
      if (problem !== undefined) throw new RulesError(problem);
      return undefined;
    };
    await using agent = await start(current);
    const first = await rig.broker.publish(configMap('held', 'a: b'));
    agent.reconciler.offer(first);
    await rig.broker.applied(first);
    problem = 'the rules of the environment are invalid: line 1, column 1: /x is unknown';
    const second = await rig.broker.publish(configMap('held', 'a: c'), { after: first });
    agent.reconciler.offer(second);
    await rig.broker.until('failed', () => rig.broker.statuses.get(second.stackId)?.phase === Phase.FAILED);
    expect(rig.broker.statuses.get(second.stackId)?.message).toBe(problem);
    problem = undefined;
    agent.reconciler.rulesChanged();
    await rig.broker.applied(second);
  });

  it('do not stop the correction of what was allowed before', async () => {
    let current: Rules | undefined;
    await using agent = await start(() => current);
    const target = await rig.broker.publish(configMap('drifting', 'a: b'));
    agent.reconciler.offer(target);
    await rig.broker.applied(target);
    current = { kinds: { forbidden: ['ConfigMap'] } };
    const path = `/api/v1/namespaces/${rig.namespace}/configmaps/drifting`;
    expect(await rig.server.request('DELETE', path)).toMatchObject({ status: 200 });
    await expect.poll(() => statusOf(path), { timeout: 20_000 }).toBe(200);
  });
});
