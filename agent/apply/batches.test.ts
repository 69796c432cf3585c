import { afterAll, describe, expect, it } from 'vitest';
import { isOpaque, keyString } from '#lib/object.ts';
import { createYamlPool } from '#lib/yaml-pool.ts';
import { prepareInBatches } from './batches.ts';

const yaml = createYamlPool({ maxThreads: 1 });
afterAll(() => yaml[Symbol.asyncDispose]());

const { signal } = new AbortController();
const SALT = new Uint8Array(16).fill(1);
const FILLER = 'x'.repeat(200 * 1024);
const DEFINITION = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
    - name: v1
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`;

const configMap = (name: string, namespace = 'shop') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}${namespace === '' ? '' : `, namespace: ${namespace}`}}\ndata: {a: ${FILLER}}\n`;
const widget = (name: string, size: string) =>
  `apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: ${name}, annotations: {filler: ${FILLER}}}\nspec: {size: ${size}}\n`;

async function prepare(...documents: readonly string[]) {
  const text = documents.join('---\n');
  const { manifest, documents: sources } = await yaml.publish({ text, salt: SALT, validation: 'full' }, signal);
  if (isOpaque(manifest)) throw new Error('not parsed');
  const texts = new Map(sources.map((source) => [source.sourceDigest, source.text]));
  const scopes = { '/ConfigMap': 'Namespaced', 'apiextensions.k8s.io/CustomResourceDefinition': 'Cluster' } as const;
  const input = { salt: SALT, scopes, defaultNamespace: 'shop', stamp: { labels: {}, annotations: {} }, schemas: {} };
  const before = yaml.counts.prepare;
  const result = await prepareInBatches(yaml, input, manifest, texts, signal);
  return { ...result, tasks: yaml.counts.prepare - before, wanted: manifest.length };
}

describe('the objects of a manifest, batch by batch', () => {
  it('are all prepared, a definition and its resources in different batches too', async () => {
    const maps = ['a', 'b', 'c', 'd', 'e'].map((name) => configMap(name));
    const widgets = ['one', 'two', 'three'].map((name) => widget(name, '1'));
    const { objects, problems, tasks, wanted } = await prepare(...maps, DEFINITION, ...widgets);
    expect(problems).toEqual([]);
    expect(objects).toHaveLength(wanted);
    expect(tasks).toBeGreaterThan(3);
    const resources = objects.filter(({ key }) => key.kind === 'Widget');
    expect(resources.map(({ scope, key }) => [scope, key.namespace])).toEqual(resources.map(() => ['Namespaced', 'shop']));
    const definition = keyString({
      group: 'apiextensions.k8s.io',
      kind: 'CustomResourceDefinition',
      namespace: '',
      name: 'widgets.example.org',
    });
    for (const { needs } of resources) expect(needs).toContain(definition);
  });

  it('are judged by a definition of another batch', async () => {
    const widgets = ['one', 'two', 'three', 'four'].map((name) => widget(name, name === 'four' ? 'large' : '1'));
    const { problems } = await prepare(DEFINITION, ...widgets);
    expect(problems).toMatchObject([{ rule: 'schema', path: '/spec/size', severity: 'error' }]);
  });

  it('are told to be there twice though they are in different batches', async () => {
    const { problems } = await prepare(
      configMap('a', ''),
      configMap('b', ''),
      configMap('c', ''),
      configMap('a'),
      configMap('d'),
    );
    expect(problems).toMatchObject([{ rule: 'duplicate_object', object: 'v1 ConfigMap shop/a', severity: 'error' }]);
  });

  it('are read once when they are items of one document', async () => {
    const items = ['a', 'b', 'c', 'd'].map((name) => `  - ${configMap(name).trimEnd().replaceAll('\n', '\n    ')}`).join('\n');
    const { objects, problems, tasks } = await prepare(`apiVersion: v1\nkind: List\nitems:\n${items}\n`);
    expect(problems).toEqual([]);
    expect(objects).toHaveLength(4);
    expect(tasks).toBe(1);
  });
});
