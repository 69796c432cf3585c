import { describe, expect, it } from 'vitest';
import { type ManifestEntry, type OpaqueManifest, sourceDigest } from './object.ts';
import { HARD_LIMITS } from './yaml.ts';
import { publish } from './yaml-content.ts';
import { type PrepareInput, prepare } from './yaml-prepare.ts';

const SALT = new Uint8Array(16).fill(7);
const run = (text: string, salt = SALT) => publish({ text, salt, validation: 'full' });
const entriesOf = (text: string, salt = SALT) => run(text, salt).manifest as readonly ManifestEntry[];
const rules = (text: string) => run(text).problems.map(({ rule, severity }) => `${severity} ${rule}`);
const configMap = (name: string, rest = '') => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\n${rest}`;

describe('publish', () => {
  it('makes a sorted manifest and keeps the documents as received', () => {
    const deployment =
      'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop, annotations: {brokkr.io/wave: "2"}}\n';
    const text = `${deployment}---\n# first\n${configMap('b')}---\n${configMap('a')}`;
    const { manifest, documents, checksum, problems } = run(text);
    expect(problems).toEqual([]);
    expect(checksum).toBe(sourceDigest(text));
    expect(documents.map((document) => document.text)).toEqual([deployment, `# first\n${configMap('b')}`, configMap('a')]);
    expect(manifest).toMatchObject([
      { group: '', version: 'v1', kind: 'ConfigMap', namespace: '', name: 'a', wave: 0, item: 0 },
      { group: '', kind: 'ConfigMap', name: 'b', size: configMap('b').length + 8 },
      { group: 'apps', kind: 'Deployment', namespace: 'shop', name: 'web', wave: 2, sourceDigest: sourceDigest(deployment) },
    ]);
  });

  it('gives one object digest whatever the order of keys, the comments and the style', () => {
    const [a] = entriesOf(configMap('a', 'data: {x: "1", z: "2"}\n'));
    const [b] = entriesOf('kind: ConfigMap # moved\ndata:\n  "z": \'2\'\n  x: "1"\nmetadata:\n  name: a\napiVersion: v1\n');
    expect(a?.objectDigest).toBe(b?.objectDigest);
    expect(a?.sourceDigest).not.toBe(b?.sourceDigest);
  });

  it('gives another object digest for another salt, value or long number', () => {
    const digests = [
      entriesOf(configMap('a')),
      entriesOf(configMap('a'), new Uint8Array(16)),
      entriesOf(configMap('a', 'data: {x: "1"}\n')),
      entriesOf(configMap('a', 'x: 9007199254740993\n')),
      entriesOf(configMap('a', 'x: 9007199254740992\n')),
    ].map(([entry]) => entry?.objectDigest);
    expect(new Set(digests).size).toBe(5);
  });

  it('flattens lists, whose items share a document', () => {
    const item = (name: string) => `  - {apiVersion: v1, kind: ConfigMap, metadata: {name: ${name}}}\n`;
    for (const kind of ['List', 'ConfigMapList']) {
      const { manifest, documents } = run(`apiVersion: v1\nkind: ${kind}\nitems:\n${item('b')}${item('a')}`);
      expect(manifest).toMatchObject([
        { name: 'a', item: 2 },
        { name: 'b', item: 1 },
      ]);
      expect(documents).toHaveLength(1);
    }
    expect(rules('kind: List\nitems: [{kind: List, items: []}, {metadata: {name: a}}]')).toEqual([
      'error nested_list',
      'error missing_field',
      'error missing_field',
    ]);
  });

  it('takes off what only a server may set, and says so', () => {
    const metadata =
      'metadata: {name: a, uid: u, resourceVersion: "1", creationTimestamp: null, generation: 3, managedFields: []}\n';
    const { manifest, problems } = run(`apiVersion: v1\nkind: ConfigMap\n${metadata}status: {x: 1}\n`);
    expect(problems.map(({ path, severity }) => `${severity} ${path}`).sort()).toEqual([
      'warning /metadata/generation',
      'warning /metadata/managedFields',
      'warning /metadata/resourceVersion',
      'warning /metadata/uid',
      'warning /status',
    ]);
    expect((manifest as ManifestEntry[])[0]?.objectDigest).toBe(entriesOf(configMap('a'))[0]?.objectDigest);
  });

  it.each([
    ['- 1', ['error not_an_object']],
    ['just text', ['error not_an_object']],
    ['apiVersion: v1\nkind: ConfigMap', ['error missing_field']],
    ['metadata: {name: a}', ['error missing_field', 'error missing_field']],
    [
      'apiVersion: 1\nkind: ConfigMap\nmetadata: {name: 007}',
      ['warning octal_number', 'error not_a_string', 'error not_a_string'],
    ],
    ['apiVersion: a/b/c\nkind: X\nmetadata: {name: a}', ['error invalid_api_version']],
    ['apiVersion: v1\nkind: "A B"\nmetadata: {name: a}', ['error invalid_kind']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}', ['error generate_name']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: Web}', ['error invalid_name']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}', ['error invalid_name']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: A.b}', ['error invalid_namespace']],
    ['apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: "system:Web"}', []],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: a, ownerReferences: [{uid: x}]}', ['error owner_references']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {on-call: true}}', ['error not_a_string']],
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {brokkr.io/wave: soon}}', ['error invalid_wave']],
    [configMap('a', 'data: {port: 80}\n'), ['error not_a_string']],
  ])('judges %j', (text, expected) => {
    expect(rules(text).sort()).toEqual([...expected].sort());
  });

  it('refuses an object that appears twice, in whatever version, and names both documents', () => {
    const ingress = (version: string) => `apiVersion: example.com/${version}\nkind: Widget\nmetadata: {name: a}\n`;
    const { problems, manifest, documents } = run(`${ingress('v1')}---\n${configMap('a')}---\n${ingress('v1beta1')}`);
    expect(problems).toEqual([
      {
        document: 3,
        line: 9,
        object: 'example.com/v1beta1 Widget a',
        rule: 'duplicate_object',
        message: 'the object is both in document 1 (line 1) and in document 3 (line 9)',
        severity: 'error',
      },
    ]);
    expect([manifest, documents]).toEqual([[], []]);
  });

  it('refuses what Kubernetes would refuse for its size, with numbers', () => {
    const message = (text: string) => run(text).problems.map((problem) => problem.message);
    expect(message(configMap('a', `data: {x: "${'x'.repeat(1_048_577)}"}\n`))).toEqual([
      'the data of the ConfigMap have 1048577 bytes, the limit is 1048576',
    ]);
    expect(rules(configMap('a', `data: {x: "${'x'.repeat(1_048_576)}"}\n`))).toEqual([]);
    const secret = Buffer.alloc(1_048_577).toString('base64');
    expect(rules(`apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: ${secret}}\n`)).toEqual(['error data_too_large']);
    const annotations = `apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {a: "${'x'.repeat(262_144)}"}}\n`;
    expect(message(annotations)).toEqual(['the annotations have 262145 bytes, the limit is 262144']);
    expect(rules(`apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {x: "${'x'.repeat(1_572_864)}"}\n`)).toEqual([
      'error object_too_large',
    ]);
  });

  it('counts the items of lists as documents', () => {
    const items = Array.from({ length: 11 }, (_, index) => `  - {apiVersion: v1, kind: ConfigMap, metadata: {name: a${index}}}`);
    const text = `kind: List\nitems:\n${items.join('\n')}\n`;
    const { problems } = publish({ text, salt: SALT, limits: { ...HARD_LIMITS, documents: 10 }, validation: 'full' });
    expect(problems).toMatchObject([{ rule: 'too_many_documents', message: expect.stringContaining('11 objects') }]);
  });

  it('never quotes the values of a Secret', () => {
    const secret = (data: string) => `apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n${data}`;
    const texts = [
      '  a: hunter2: x\n',
      '  a: *hunter2\n',
      '  a: !hunter2 x\n',
      '  a: "hunter2\n',
      '  a: [hunter2]\n',
      '  a: {hunter2: 1}\n',
    ];
    for (const text of texts) {
      const { problems } = run(secret(text));
      expect(problems).not.toEqual([]);
      expect(JSON.stringify(problems)).not.toContain('hunter2');
    }
  });

  it('stores a text it does not read as one document', () => {
    const text = 'not: [valid\n';
    const { manifest, documents, problems } = publish({ text, salt: SALT, validation: 'none' });
    expect(manifest).toEqual({ opaqueSourceDigest: sourceDigest(text), size: 12 } satisfies OpaqueManifest);
    expect(documents).toEqual([{ sourceDigest: sourceDigest(text), text }]);
    expect(problems).toEqual([]);
  });
});

describe('prepare', () => {
  const base = { salt: SALT, defaultNamespace: 'apps', stamp: { labels: { 'brokkr.io/stack': 's' }, annotations: {} } };
  const scopes: PrepareInput['scopes'] = { '/ConfigMap': 'Namespaced', '/Namespace': 'Cluster' };
  const prepared = (text: string, change: Partial<PrepareInput> = {}) => {
    const { documents } = run(text);
    return prepare({ ...base, scopes, documents, entries: entriesOf(text), ...change });
  };
  const TEXT = `${configMap('a', 'x: 9007199254740993\n')}---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, namespace: x}\n`;

  it('gives back what was published: same digests, namespaces resolved, stamped', () => {
    const { objects, problems } = prepared(TEXT);
    expect(problems).toMatchObject([{ rule: 'cluster_scoped', severity: 'warning' }]);
    expect(objects.map(({ digest }) => digest)).toEqual(entriesOf(TEXT).map(({ objectDigest }) => objectDigest));
    expect(objects.map(({ key, scope }) => [key.kind, key.namespace, key.name, scope])).toEqual([
      ['ConfigMap', 'apps', 'a', 'Namespaced'],
      ['Namespace', '', 'shop', 'Cluster'],
    ]);
    expect(objects[0]?.json).toBe(
      '{"metadata":{"labels":{"brokkr.io/stack":"s"},"name":"a","namespace":"apps"},"apiVersion":"v1","kind":"ConfigMap","x":9007199254740993}',
    );
    expect(objects[1]?.json).not.toContain('namespace"');
  });

  it('reads only the entries asked for', () => {
    const { objects } = prepared(TEXT, { entries: entriesOf(TEXT).slice(0, 1) });
    expect(objects.map(({ key }) => key.name)).toEqual(['a']);
  });

  it('reads everything of an opaque text, and reports what is wrong with it', () => {
    const opaque = (text: string) =>
      prepared(TEXT, { documents: [{ text, sourceDigest: sourceDigest(text) }], entries: undefined });
    expect(opaque(TEXT).objects).toHaveLength(2);
    expect(opaque(`${TEXT}---\na: [`).problems).toContainEqual(
      expect.objectContaining({ document: 3, line: 10, column: 5, rule: 'yaml_syntax' }),
    );
  });

  it('refuses what does not have the digests of the manifest', () => {
    const [entry] = entriesOf(configMap('a'));
    if (!entry) throw new Error('no entry');
    const other = configMap('a', 'data: {x: "1"}\n');
    const cases: [Partial<PrepareInput>, string][] = [
      [{ documents: [{ text: other, sourceDigest: entry.sourceDigest }], entries: [] }, 'digest_mismatch'],
      [{ documents: [], entries: [entry] }, 'missing_document'],
      [{ entries: [{ ...entry, objectDigest: '00'.repeat(32) }] }, 'digest_mismatch'],
      [{ entries: [{ ...entry, name: 'b' }] }, 'digest_mismatch'],
      [{ entries: [{ ...entry, item: 1 }] }, 'digest_mismatch'],
      [{ salt: new Uint8Array(16) }, 'digest_mismatch'],
    ];
    for (const [change, rule] of cases) {
      const { objects, problems } = prepared(configMap('a'), change);
      expect(problems).toMatchObject([{ rule, severity: 'error' }]);
      expect(objects).toEqual([]);
    }
  });

  it('finds objects that only the default namespace makes the same', () => {
    const text = `${configMap('a')}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: apps}\n`;
    expect(run(text).problems).toEqual([]);
    expect(prepared(text).problems).toMatchObject([{ rule: 'duplicate_object' }]);
  });
});
