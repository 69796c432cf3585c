import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { openRecorder, type Recorder } from './recorder.ts';

let rig: EngineRig;
let recorder: Recorder;
beforeAll(async () => {
  rig = await openEngineRig('manifests');
  recorder = await openRecorder(rig.server);
});
afterAll(async () => {
  await recorder?.[Symbol.asyncDispose]();
  await rig?.broker[Symbol.asyncDispose]();
});

const start = () => rig.broker.start({ url: recorder.url, token: rig.identity.token }, { namespace: rig.namespace });
const configMap = (name: string, rest = '', metadata = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}${metadata}}\n${rest}`;
const FINE = configMap('fine');
const live = async (path: string) => (await rig.server.request('GET', path)).body;
const configMapPath = (name: string) => `/api/v1/namespaces/${rig.namespace}/configmaps/${name}`;

/** What is refused at publish: name, text, and its problems as `document path rule`. */
const REFUSED: readonly (readonly [string, string, readonly string[]])[] = [
  [
    'generateName without a name',
    `${FINE}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n`,
    ['2 /metadata/generateName generate_name'],
  ],
  ['an object twice', `${configMap('a')}---\n${FINE}---\n${configMap('a', 'data: {x: "1"}\n')}`, ['3  duplicate_object']],
  [
    'an object in two versions of its group',
    [1, 2].map((v) => `apiVersion: x.org/v${v}\nkind: Thing\nmetadata: {name: a}\n`).join('---\n'),
    ['2  duplicate_object'],
  ],
  ['a missing name', `${FINE}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {}\n`, ['2 /metadata/name missing_field']],
  [
    'yes, on, 0777 and 1e3 where texts are wanted',
    configMap('a', 'data: {a: yes, b: on, c: 0777, d: 1e3, e: 1152921504606846976}\n'),
    [...['a', 'b', 'c', 'd', 'e'].map((key) => `1 /data/${key} not_a_string`)],
  ],
  [
    'an alias bomb',
    `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`,
    ['1  alias_expansion'],
  ],
  ['a duplicate key', `${FINE}---\n${configMap('a', 'data: {x: "1"}\ndata: {x: "2"}\n')}`, ['2  duplicate_key']],
  ['1.2 MB of data', configMap('a', `data: {x: "${'x'.repeat(1_200_000)}"}\n`), ['1 /data data_too_large']],
  [
    '300 KB of annotations',
    configMap('a', '', `, annotations: {x: "${'x'.repeat(300_000)}"}`),
    ['1 /metadata/annotations annotations_too_large'],
  ],
  [
    'a body of 3.5 MB',
    `apiVersion: x.org/v1\nkind: Thing\nmetadata: {name: a}\nspec: "${'x'.repeat(3_500_000)}"\n`,
    ['1  object_too_large'],
  ],
  ['an upper-case name', configMap('Web'), ['1 /metadata/name invalid_name']],
  [
    'an item of a list',
    'apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {kind: ConfigMap}\n',
    ['1 /items/1/metadata missing_field'],
  ],
  [
    'everything wrong in several documents',
    `a: [\n---\n${FINE}---\n${configMap('B')}`,
    ['1  yaml_syntax', '3 /metadata/name invalid_name'],
  ],
];

describe('T39 refused at publish with document and path', () => {
  it.each(REFUSED)('T39 %s', async (_name, text, expected) => {
    const input = { text, salt: new Uint8Array(16), validation: 'full' } as const;
    const { problems, manifest, documents } = await rig.broker.yaml.publish(input, new AbortController().signal);
    const errors = problems.filter(({ severity }) => severity === 'error');
    expect(errors.map(({ document, path = '', rule }) => `${document} ${path} ${rule}`)).toEqual(expected);
    expect([manifest, documents]).toEqual([[], []]);
  });

  it('T39 published unread, the same is refused by the agent with the same places, and nothing is written', async () => {
    await using agent = await start();
    for (const [name, text, expected] of REFUSED) {
      const before = recorder.applies().length;
      const target = await rig.broker.publish(text, { validation: 'none' });
      agent.reconciler.offer(target);
      await rig.broker.until(`refused: ${name}`, () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
      const objects = rig.broker.eventsOf(target)[0]?.objects ?? [];
      expect(objects.map(({ document, path, reason }) => `${document} ${path} ${reason}`)).toEqual(expected);
      expect(recorder.applies().length).toBe(before);
    }
  });
});

/** What is accepted: name, text, and what is read of the live object with what it says. */
type Accepted = readonly [
  name: string,
  text: () => string,
  path: () => string,
  read: (object: never) => unknown,
  expected: unknown,
];
const ACCEPTED: readonly Accepted[] = [
  [
    'kind List',
    () =>
      `apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: list-1}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: list-2}, data: {x: "1"}}\n`,
    () => configMapPath('list-2'),
    ({ data }: { data: unknown }) => data,
    { x: '1' },
  ],
  [
    'kind ConfigMapList',
    () => 'apiVersion: v1\nkind: ConfigMapList\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: typed-list}}\n',
    () => configMapPath('typed-list'),
    ({ kind }: { kind: string }) => kind,
    'ConfigMap',
  ],
  [
    'a status and a null creationTimestamp, as kubectl --dry-run writes them',
    () =>
      `apiVersion: v1\nkind: Service\nmetadata: {name: dry, creationTimestamp: null, uid: "1", resourceVersion: "7"}\nspec: {ports: [{port: 80}]}\nstatus: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}\n`,
    () => `/api/v1/namespaces/${rig.namespace}/services/dry`,
    ({ status }: { status: unknown }) => status,
    { loadBalancer: {} },
  ],
  [
    'a byte order mark and CRLF',
    () => `\ufeff${configMap('crlf', 'data:\n  x: |\n    one\n    two\n').replaceAll('\n', '\r\n')}`,
    () => configMapPath('crlf'),
    ({ data }: { data: unknown }) => data,
    { x: 'one\ntwo\n' },
  ],
  [
    'quoted scalars',
    () => configMap('quoted', 'data: {a: "yes", b: "0777", c: "1e3", d: "1152921504606846976", e: 2024-01-01, f: "12:30:45"}\n'),
    () => configMapPath('quoted'),
    ({ data }: { data: unknown }) => data,
    { a: 'yes', b: '0777', c: '1e3', d: '1152921504606846976', e: '2024-01-01', f: '12:30:45' },
  ],
  [
    '1 MB of data',
    () => configMap('large', `data: {x: "${'x'.repeat(1_000_000)}"}\n`),
    () => configMapPath('large'),
    ({ data }: { data: { x: string } }) => data.x.length,
    1_000_000,
  ],
  [
    '200 KB of annotations',
    () => configMap('annotated', '', `, annotations: {x: "${'x'.repeat(200_000)}"}`),
    () => configMapPath('annotated'),
    ({ metadata }: { metadata: { annotations: { x: string } } }) => metadata.annotations.x.length,
    200_000,
  ],
  [
    'a namespace on a cluster-scoped object',
    () =>
      `apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: ${rig.namespace}-role, namespace: ${rig.namespace}}\nrules: []\n`,
    () => `/apis/rbac.authorization.k8s.io/v1/clusterroles/${rig.namespace}-role`,
    ({ metadata }: { metadata: { namespace?: string } }) => metadata.namespace,
    undefined,
  ],
  [
    'aliases that are no bomb',
    () => configMap('aliased', 'data:\n  a: &a one\n  b: *a\n'),
    () => configMapPath('aliased'),
    ({ data }: { data: unknown }) => data,
    { a: 'one', b: 'one' },
  ],
];

describe('T39 accepted, applied, and a second apply of the same bytes moves no resource version', () => {
  it.each(ACCEPTED)('T39 %s', async (_name, text, path, read, expected) => {
    await using agent = await start();
    const before = recorder.applies().length;
    const target = await rig.broker.publish(text());
    agent.reconciler.offer(target);
    await rig.broker.applied(target);
    const object = await live(path());
    expect(read(object as never)).toEqual(expected);
    const sent = recorder.applies().slice(before);
    expect(sent.length).toBeGreaterThan(0);
    const versions = await Promise.all(
      sent.map(({ path: place }) => live(place).then(({ metadata }) => metadata.resourceVersion)),
    );
    expect(await Promise.all(sent.map((request) => recorder.again(request)))).toEqual(versions);
    const next = await rig.broker.publish(`# nothing else is new\n${text().replace('\ufeff', '')}`, { after: target });
    agent.reconciler.offer(next);
    await rig.broker.applied(next);
    expect(recorder.applies().length).toBe(before + 2 * sent.length); // those that the test sent again
  });

  it('T39 0777, yes, on, 1e3 and 2^60 mean what they mean to kubectl', async () => {
    await using agent = await start();
    const group = `${rig.namespace}.example.org`;
    const definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.${group}}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`;
    const thing = (name: string) =>
      `apiVersion: ${group}/v1\nkind: Thing\nmetadata: {name: ${name}, namespace: ${rig.namespace}}\nspec: {octal: 0777, bool: yes, list: [on, off, n], exp: 1e3, big: 1152921504606846977, under: 1_000, hex: 0x1F, date: 2024-01-01, time: 12:30:45, text: "0777"}\n`;
    const target = await rig.broker.publish(`${definition}---\n${thing('ours')}`);
    agent.reconciler.offer(target);
    await rig.broker.applied(target);
    await using file = await temporaryFile(thing('theirs'));
    await rig.server.kubectl('apply', '--server-side', '-f', file.path);
    const spec = (name: string) =>
      rig.server.kubectl('get', `things.${group}`, name, '-n', rig.namespace, '-o', 'jsonpath={.spec}');
    expect(await spec('ours')).toBe(await spec('theirs'));
    expect(await spec('ours')).toContain('"big":1152921504606846977');
  });
});

async function temporaryFile(text: string) {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-manifest-'));
  const path = join(dir, 'manifest.yaml');
  await writeFile(path, text);
  return { path, [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) };
}
