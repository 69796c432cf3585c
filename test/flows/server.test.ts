import { beforeAll, describe, expect, it } from 'vitest';
import { compile } from '#flows/compile/compile.ts';
import { type Kube, useKube } from '../kube.ts';
import { exampleModel } from './flow-rig.ts';

let kube: Kube;
beforeAll(async () => {
  kube = await useKube();
});

/** Every example with what it is compiled for. */
const EXAMPLES = [
  ['red-kite', 'production', ''],
  ['red-kite', 'development', ''],
  ['webgrip', '', ''],
  ['brokkr', '', ''],
  ['verrazzano', '', 'admin'],
  ['verrazzano', '', 'managed'],
] as const;

describe.each(['endpoint', 'flow'] as const)('policies by %s', (granularity) => {
  it.each(EXAMPLES)('of %s %s %s are taken by the API server with fieldValidation=Strict', async (example, profile, cluster) => {
    const model = await exampleModel(example, { profiles: profile === '' ? [] : [profile] });
    const { objects } = compile(model, { granularity, ...(cluster !== '' && { cluster }) });
    const namespaces = new Map<string, string>();
    for (const namespace of new Set(objects.map(({ metadata }) => metadata.namespace)))
      namespaces.set(namespace, await kube.namespace(namespace));
    const refused: unknown[] = [];
    for (const { metadata, ...rest } of objects) {
      const namespace = namespaces.get(metadata.namespace) ?? '';
      const path = `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies?fieldValidation=Strict`;
      const { status, body } = await kube.request('POST', path, { ...rest, metadata: { ...metadata, namespace } });
      if (status !== 201) refused.push({ name: metadata.name, status, body });
    }
    expect(refused).toEqual([]);
    expect(objects.length).toBeGreaterThan(4);
  });
});
