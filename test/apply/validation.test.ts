import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('validation');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const start = () => rig.start();

const definition = (group: string, size: string) => `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.${group}}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [size]
              properties:
                size: ${size}
                mode: {type: string, enum: [fast, safe]}
                port: {x-kubernetes-int-or-string: true}
                source:
                  type: object
                  properties: {path: {type: string}, url: {type: string, pattern: '^https://'}}
                  oneOf: [{required: [path]}, {required: [url]}]
                items:
                  type: array
                  x-kubernetes-list-type: map
                  x-kubernetes-list-map-keys: [name]
                  items: {type: object, required: [name], properties: {name: {type: string}}}
`;
const thing = (group: string, name: string, spec: string) =>
  `apiVersion: ${group}/v1\nkind: Thing\nmetadata: {name: ${name}}\nspec: ${spec}\n`;
const yaml = (...documents: string[]) => documents.join('---\n');

/** Publishes, waits for the refusal, and returns what it names, and what was written to the cluster meanwhile. */
async function refusal(text: string, after?: Parameters<EngineRig['broker']['publish']>[1]) {
  await using agent = await start();
  const mark = await rig.server.auditMark();
  const target = await rig.broker.publish(text, after);
  agent.reconciler.offer(target);
  await rig.broker.until('refused', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
  const event = rig.broker.eventsOf(target).at(-1);
  const writes = await rig.server.auditEvents({
    user: rig.identity.user,
    since: mark,
    verbs: ['create', 'update', 'patch', 'delete'],
  });
  return {
    event,
    told: event?.objects.map(({ kind, name, reason, path }) => `${kind} ${name} ${reason} ${path}`),
    written: writes.filter(({ objectRef }) => !objectRef?.name?.startsWith('brokkr-inv-')),
  };
}

describe('T05 a custom resource that its definition refuses', () => {
  it('T05 of the same snapshot: everything is told together, with object, path and rule, before any write', async () => {
    const group = `one.${rig.namespace}.example.org`;
    const { event, told, written } = await refusal(
      yaml(
        thing(group, 'unknown', '{size: 1, colour: red, port: [1]}'),
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n',
        definition(group, '{type: integer, minimum: 1}'),
        thing(group, 'values', '{size: 0, mode: slow, source: {url: "http://x"}, items: [{name: a}, {name: a}]}'),
        thing(group, 'missing', '{source: {}}'),
        `apiVersion: ${group}/v1\nkind: Thing\nmetadata: {name: empty}\n`,
        thing(group, 'good', '{size: 2, mode: fast, port: web, source: {path: /x}, items: [{name: a}, {name: b}]}'),
      ),
    );
    expect(written).toEqual([]);
    expect(event).toMatchObject({ eventType: 'VALIDATE', success: false, message: expect.stringMatching(/\(and \d+ more\)$/) });
    expect([...new Set(told)].sort()).toEqual(
      [
        'Thing empty schema ',
        'Thing missing schema /spec',
        'Thing missing schema /spec/source',
        'Thing unknown schema /spec/port',
        'Thing unknown unknown_field /spec/colour',
        'Thing values duplicate_list_key /spec/items/1',
        'Thing values schema /spec/mode',
        'Thing values schema /spec/size',
        'Thing values schema /spec/source/url',
      ].sort(),
    );
  });

  it('T05 whose new version in the snapshot is narrower than the one the cluster has', async () => {
    const group = `two.${rig.namespace}.example.org`;
    const first = await rig.broker.publish(
      yaml(definition(group, '{type: integer, minimum: 1}'), thing(group, 'a', '{size: 1}')),
    );
    {
      await using agent = await start();
      agent.reconciler.offer(first);
      await rig.broker.applied(first);
    }
    const { told, written } = await refusal(
      yaml(definition(group, '{type: integer, minimum: 5}'), thing(group, 'a', '{size: 2}')),
      { after: first },
    );
    expect(told).toEqual(['Thing a schema /spec/size']);
    expect(written).toEqual([]);
    const { body } = await rig.server.request('GET', `/apis/${group}/v1/namespaces/${rig.namespace}/things/a`);
    expect(body.spec).toEqual({ size: 1 });
  });

  it('T05 and one that it takes is applied in the same pass', async () => {
    const group = `three.${rig.namespace}.example.org`;
    await using agent = await start();
    const target = await rig.broker.publish(
      yaml(
        thing(group, 'good', '{size: 2, mode: fast, port: 80, source: {url: "https://x"}, items: [{name: a}, {name: b}]}'),
        definition(group, '{type: integer, minimum: 1}'),
      ),
    );
    agent.reconciler.offer(target);
    await rig.broker.applied(target);
    expect(rig.broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 2 } }]);
  });
});
