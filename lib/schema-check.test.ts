import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { sourceDigest, type ValueObject } from './object.ts';
import { SchemaSet } from './schema-check.ts';
import { parseStream } from './yaml.ts';
import { prepare } from './yaml-prepare.ts';

/** A piece of apps/v1 in the form a server serves it. */
const OPENAPI = {
  components: {
    schemas: {
      'io.k8s.api.apps.v1.Deployment': {
        type: 'object',
        properties: {
          apiVersion: { type: 'string' },
          kind: { type: 'string' },
          metadata: { allOf: [{ $ref: '#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta' }], default: {} },
          spec: { allOf: [{ $ref: '#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec' }], default: {} },
        },
        'x-kubernetes-group-version-kind': [{ group: 'apps', kind: 'Deployment', version: 'v1' }],
      },
      'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta': {
        type: 'object',
        properties: {
          name: { type: 'string' },
          labels: { type: 'object', additionalProperties: { type: 'string', default: '' } },
        },
      },
      'io.k8s.api.apps.v1.DeploymentSpec': {
        type: 'object',
        required: ['selector'],
        properties: {
          replicas: { type: 'integer', format: 'int32' },
          selector: { type: 'object', additionalProperties: { type: 'string' } },
          surge: { $ref: '#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString' },
          limits: {
            additionalProperties: { $ref: '#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity' },
            type: 'object',
          },
          free: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true, properties: { a: { type: 'string' } } },
          ports: {
            type: 'array',
            items: { allOf: [{ $ref: '#/components/schemas/io.k8s.api.core.v1.ContainerPort' }], default: {} },
            'x-kubernetes-list-map-keys': ['containerPort', 'protocol'],
            'x-kubernetes-list-type': 'map',
          },
        },
      },
      'io.k8s.api.core.v1.ContainerPort': {
        type: 'object',
        properties: { containerPort: { type: 'integer' }, protocol: { type: 'string', default: 'TCP', enum: ['TCP', 'UDP'] } },
      },
      'io.k8s.apimachinery.pkg.util.intstr.IntOrString': { type: 'string', format: 'int-or-string' },
      'io.k8s.apimachinery.pkg.api.resource.Quantity': { type: 'string' },
    },
  },
};

const directory = mkdtempSync(join(tmpdir(), 'brokkr-schema-'));
const path = join(directory, 'apps-v1.json');
writeFileSync(path, JSON.stringify(OPENAPI));
afterAll(() => rmSync(directory, { recursive: true }));

const KIND = { group: 'apps', version: 'v1', kind: 'Deployment' };

function violations(spec: string, kind = KIND): string[] {
  const { documents, problems } = parseStream(`apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: ${spec}\n`);
  expect(problems).toEqual([]);
  const found: string[] = [];
  const schemas = new SchemaSet({ 'apps/v1': { hash: 'test', path } });
  schemas.check(kind, documents[0]?.value as ValueObject, (rule, where) => found.push(`${rule} ${where}`));
  return found;
}

describe('checking against the schemas of a server', () => {
  it.each([
    '{selector: {a: b}}',
    '{selector: {}, replicas: 3, surge: 1, limits: {cpu: 1, memory: 1Gi}}',
    '{selector: {}, surge: 25%, replicas: null}',
    '{selector: {}, free: {b: {c: 1}}}',
    '{selector: {}, replicas: 9007199254740993}',
    '{selector: {}, ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]}',
  ])('accepts %s', (spec) => {
    expect(violations(spec)).toEqual([]);
  });

  it.each([
    ['{selector: {}, replica: 3}', ['unknown_field /spec/replica']],
    ['{selector: {}, replicas: "3"}', ['schema /spec/replicas']],
    ['{selector: {a: 1}}', ['schema /spec/selector/a']],
    ['{}', ['schema /spec']],
    ['{selector: {}, surge: true}', ['schema /spec/surge']],
    ['{selector: {}, free: {a: 1}}', ['schema /spec/free/a']],
    ['{selector: {}, ports: [{containerPort: 80, protocol: ICMP}]}', ['schema /spec/ports/0/protocol']],
    ['{selector: {}, ports: [{containerPort: 80}, {containerPort: 80, protocol: TCP}]}', ['duplicate_list_key /spec/ports/1']],
    ['{selector: {}, ports: [{containerport: 80}]}', ['unknown_field /spec/ports/0/containerport']],
  ])('refuses %s', (spec, expected) => {
    expect(violations(spec)).toEqual(expected);
  });

  it('passes kinds and groups it has no schema of', () => {
    expect(violations('{x: 1}', { ...KIND, kind: 'Other' })).toEqual([]);
    expect(violations('{x: 1}', { ...KIND, group: 'other' })).toEqual([]);
  });

  it('judges custom resources by the definition in the same documents', () => {
    const text = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                size: {type: integer, minimum: 1}
                mode: {type: string, nullable: true, enum: [a, b]}
                port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: bad}
spec: {size: 0, mode: c, port: http, more: 1}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: good}
spec: {size: 1, mode: null, port: 80}
`;
    const { objects, problems } = prepare({
      documents: [{ text, sourceDigest: sourceDigest(text) }],
      entries: undefined,
      salt: new Uint8Array(16),
      scopes: {},
      defaultNamespace: 'apps',
      stamp: { labels: {}, annotations: {} },
      schemas: {},
    });
    expect(problems.map(({ object, rule, path: where }) => `${object} ${rule} ${where}`)).toEqual([
      'example.com/v1 Widget apps/bad unknown_field /spec/more',
      'example.com/v1 Widget apps/bad schema /spec/size',
      'example.com/v1 Widget apps/bad schema /spec/mode',
    ]);
    expect(objects.map(({ scope }) => scope)).toEqual([undefined, 'Namespaced', 'Namespaced']);
  });
});
