import { describe, expect, it } from 'vitest';
import { systemClock } from './clock.ts';
import type { ObjectKey } from './object.ts';
import { type Allowance, checkRules, type RuledObject, type Rules } from './rules.ts';
import type { Ceilings } from './rules-workload.ts';
import { parseStream } from './yaml.ts';
import { checkObject } from './yaml-checks.ts';

function objects(text: string): RuledObject[] {
  return parseStream(text).documents.map(({ value }) => {
    const checked = checkObject(value, () => undefined);
    if (!checked) throw new Error('the test has an invalid object');
    return checked;
  });
}

function judge(rules: Rules, text: string): string[] {
  const found: string[] = [];
  checkRules(rules, 'shop', objects(text), ({ key }, rule, path) => found.push(`${key.name} ${rule} ${path}`));
  return found;
}

const object = (apiVersion: string, kind: string, rest = '', namespace = 'shop-1') =>
  `{apiVersion: ${apiVersion}, kind: ${kind}, metadata: {name: a, namespace: "${namespace}"}${rest === '' ? '' : `, ${rest}`}}`;
const container = (fields: string) =>
  object('apps/v1', 'Deployment', `spec: {template: {spec: {containers: [{name: a}, {name: b, ${fields}}]}}}`);

describe('places', () => {
  const namespaces = { allowed: ['shop-*', 'kube-*'], forbidden: ['kube-system'] };
  it.each([
    [object('v1', 'Pod'), []],
    [object('v1', 'Pod', '', 'kube-public'), []],
    [object('v1', 'Pod', '', 'kube-system'), ['a forbidden_namespace /metadata/namespace']],
    [object('v1', 'Pod', '', 'other'), ['a forbidden_namespace /metadata/namespace']],
    [object('v1', 'Namespace', '', ''), ['a forbidden_namespace /metadata/name']],
    [object('v1', 'Node', '', ''), []],
  ])('%s', (text, expected) => {
    expect(judge({ namespaces }, text)).toEqual(expected);
  });

  it.each<[Allowance, string, boolean]>([
    [{ forbidden: ['Secret'] }, object('example.com/v1', 'Secret'), false],
    [{ forbidden: ['core/Secret'] }, object('example.com/v1', 'Secret'), true],
    [{ forbidden: ['core/Secret'] }, object('v1', 'Secret'), false],
    [{ allowed: ['apps/*'] }, object('apps/v1', 'Deployment'), true],
    [{ allowed: ['apps/*'] }, object('v1', 'Pod'), false],
    [{ allowed: ['*'], forbidden: ['*.example.com/*'] }, object('a.example.com/v1', 'Any'), false],
  ])('%j and %s: %s', (kinds, text, allowed) => {
    expect(judge({ kinds }, text)).toEqual(allowed ? [] : ['a forbidden_kind /kind']);
  });
});

describe('labels', () => {
  const labels = [{ required: ['team'] }, { kinds: ['Deployment'], required: ['team', 'x.io/tier'] }];
  it('must be there with a value, each told once', () => {
    expect(judge({ labels }, object('apps/v1', 'Deployment'))).toEqual([
      'a missing_label /metadata/labels/team',
      'a missing_label /metadata/labels/x.io~1tier',
    ]);
    const labelled = '{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {team: web}}}';
    expect(judge({ labels }, labelled)).toEqual([]);
    expect(judge({ labels }, labelled.replace('web', '""'))).toEqual(['a missing_label /metadata/labels/team']);
  });
});

describe('ceilings', () => {
  const at = '/spec/template/spec/containers/1/resources';
  it.each<[Ceilings, string, string[]]>([
    [{ requests: { cpu: 1 } }, container('resources: {requests: {cpu: 1000m}}'), []],
    [{ requests: { cpu: 1 } }, container('resources: {requests: {cpu: 1001m}}'), [`${at}/requests/cpu`]],
    [{ requests: { cpu: 1 } }, container('resources: {limits: {cpu: 2}}'), [`${at}/requests/cpu`]],
    [{ requests: { memory: '1Gi' } }, container('resources: {requests: {memory: 1073741825}}'), [`${at}/requests/memory`]],
    [
      { limits: { 'nvidia.com/gpu': 1 } },
      container('resources: {limits: {nvidia.com/gpu: 2}}'),
      ['/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu', `${at}/limits/nvidia.com~1gpu`],
    ],
    [
      { limits: { cpu: '0.5' } },
      object('v1', 'Pod', 'spec: {initContainers: [{resources: {limits: {cpu: 1}}}]}'),
      ['/spec/initContainers/0/resources/limits/cpu'],
    ],
    [
      { limits: { cpu: 1 } },
      object('batch/v1', 'CronJob', 'spec: {jobTemplate: {spec: {template: {spec: {containers: [{}]}}}}}'),
      ['/spec/jobTemplate/spec/template/spec/containers/0/resources/limits/cpu'],
    ],
    [{ replicas: 3 }, object('apps/v1', 'StatefulSet', 'spec: {replicas: 4}'), ['/spec/replicas']],
    [{ replicas: 3 }, object('autoscaling/v2', 'HorizontalPodAutoscaler', 'spec: {maxReplicas: 4}'), ['/spec/maxReplicas']],
    [{ replicas: 3 }, object('apps/v1', 'Deployment', 'spec: {replicas: 3}'), []],
    [
      { storage: '1Gi' },
      object('v1', 'PersistentVolumeClaim', 'spec: {resources: {requests: {storage: 2Gi}}}'),
      ['/spec/resources/requests/storage'],
    ],
    [
      { storage: '1Gi' },
      object('apps/v1', 'StatefulSet', 'spec: {volumeClaimTemplates: [{spec: {resources: {requests: {storage: 1.1Gi}}}}]}'),
      ['/spec/volumeClaimTemplates/0/spec/resources/requests/storage'],
    ],
    [
      { limits: { cpu: 1 }, replicas: 1 },
      object('example.com/v1', 'Rollout', 'spec: {replicas: 9, template: {spec: {containers: [{}]}}}'),
      [],
    ],
  ])('%j and %s', (ceilings, text, paths) => {
    expect(judge({ ceilings }, text)).toEqual(paths.map((path) => `a above_ceiling ${path}`));
  });
});

describe('images', () => {
  const allowed = ['registry.example.com', 'localhost:5000/a/', 'nginx', 'docker.io/team'];
  it.each([
    ['registry.example.com/web:1', true],
    ['registry.example.com/a/b@sha256:0', true],
    ['registry.example.com.evil.org/web', false],
    ['registry.example.com', false],
    ['registry.example.com:5000/web', true],
    ['localhost:5000/a/web', true],
    ['localhost:5000/ab', false],
    ['nginx:1.25', true],
    ['docker.io/library/nginx', true],
    ['index.docker.io/library/nginx', true],
    ['nginx-evil', false],
    ['nginx/nginx', false],
    ['team/web', true],
    ['team-b/web', false],
  ])('%s: %s', (image, ok) => {
    const found = judge({ images: { allowed } }, container(`image: "${image}"`));
    expect(found).toEqual(ok ? [] : ['a forbidden_image /spec/template/spec/containers/1/image']);
  });

  it('are looked for wherever a pod has them', () => {
    const pod = 'spec: {initContainers: [{image: x}], ephemeralContainers: [{image: x}], volumes: [{image: {reference: x}}]}';
    expect(judge({ images: { allowed } }, object('v1', 'Pod', pod))).toEqual([
      'a forbidden_image /spec/initContainers/0/image',
      'a forbidden_image /spec/ephemeralContainers/0/image',
      'a forbidden_image /spec/volumes/0/image/reference',
    ]);
  });
});

describe('expressions', () => {
  const rule = (expression: string, kinds?: string[]) => ({
    expressions: [{ name: 'mine', message: 'that is not how we do it', expression, ...(kinds && { kinds }) }],
  });

  it('allow what they are true for, and see the object and the name of the stack', () => {
    const text = object('v1', 'Pod', 'spec: {replicas: 3}');
    expect(judge(rule('object.spec.replicas == 3 && stack.name == "shop"'), text)).toEqual([]);
    expect(judge(rule('object.spec.replicas < 3'), text)).toEqual(['a rule:mine ']);
    expect(judge(rule('object.spec.replicas < 3', ['Deployment']), text)).toEqual([]);
  });

  it('allow nothing they cannot be evaluated for, without a word of the object', () => {
    const messages: string[] = [];
    const report = (_: { key: ObjectKey }, __: string, ___: string, message: string) => messages.push(message);
    const secret = objects('{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {p: hunter2}}');
    checkRules(rule('int(object.stringData.p) > 1'), 'shop', secret, report);
    expect(messages).toEqual(['the rule cannot be evaluated: int conversion error (column 1 of the expression)']);
  });

  it('that take too long are ended, refuse the object, and are not tried on the next', () => {
    const list = `[${Array(3000).fill(1).join(',')}]`;
    const bomb = 'object.l.all(a, object.l.all(b, a == b || a > 0))';
    const start = systemClock.monotonic();
    const found: string[] = [];
    const items = objects(Array(20).fill(`{apiVersion: v1, kind: Pod, metadata: {name: a}, l: ${list}}`).join('\n---\n'));
    checkRules(rule(bomb), 'shop', items, (_, rule_, path, message) => found.push(`${rule_} ${path}${message}`));
    expect(found).toEqual(['rule:mine the rule took longer than 50 ms on this object and was not tried on those after it']);
    expect(systemClock.monotonic() - start).toBeLessThan(1500);
  });

  it('judge 5,000 objects in a moment', () => {
    const [one] = objects(object('v1', 'Pod', 'spec: {containers: [{image: a}]}'));
    const many = Array(5000).fill(one);
    const start = systemClock.monotonic();
    let refused = 0;
    checkRules(rule('object.spec.containers.all(c, c.image == "b")'), 'shop', many, () => refused++);
    expect(refused).toBe(5000);
    expect(systemClock.monotonic() - start).toBeLessThan(3000);
  });
});
