import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { openRecorder, type Recorder } from './recorder.ts';

let rig: EngineRig;
let recorder: Recorder;
let group: string;
beforeAll(async () => {
  rig = await openEngineRig('fidelity');
  recorder = await openRecorder(rig.server);
  group = `${rig.namespace}.example.org`;
  await using agent = await start();
  const target = await rig.broker.publish(definition());
  agent.reconciler.offer(target);
  await rig.broker.applied(target);
});
afterAll(async () => {
  await recorder?.[Symbol.asyncDispose]();
  await rig?.broker[Symbol.asyncDispose]();
});

const start = (log?: Parameters<EngineRig['broker']['start']>[1]['log']) =>
  rig.broker.start({ url: recorder.url, token: rig.identity.token }, { namespace: rig.namespace, ...(log && { log }) });
const live = async (path: string) => (await rig.server.request('GET', path)).body;
const inNamespace = (path: string) => path.replace('NS', `namespaces/${rig.namespace}`);

/** A definition of Things whose spec has one field of each sort that is special. */
const definition = () => `apiVersion: apiextensions.k8s.io/v1
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
          properties:
            spec:
              type: object
              properties:
                open: {type: object, x-kubernetes-preserve-unknown-fields: true}
                port: {x-kubernetes-int-or-string: true}
                maybe: {type: string, nullable: true}
                strict: {type: string}
                filled: {type: string, default: yes-please}
                list: {type: array, items: {type: string}}
                map: {type: object, additionalProperties: {type: string}}
                template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
                items:
                  type: array
                  x-kubernetes-list-type: map
                  x-kubernetes-list-map-keys: [name]
                  items: {type: object, required: [name], properties: {name: {type: string}, value: {type: integer}}}
`;
const thing = (name: string, spec: string) =>
  `apiVersion: ${group}/v1\nkind: Thing\nmetadata: {name: ${name}, namespace: ${rig.namespace}}\nspec: ${spec}\n`;

/** Name, manifest, path, and the part of the object that must be, to the letter, what was written. */
type Row = readonly [name: string, text: () => string, path: string, part: string, wanted: unknown];
const thingPath = (name: string) => `/apis/GROUP/v1/NS/things/${name}`;
const ROWS: readonly Row[] = [
  [
    'fields nobody has a type for, below preserve-unknown-fields',
    () => thing('open', '{open: {future: {a: [1, {b: null}], c: 1.5}, empty: {}, none: []}}'),
    thingPath('open'),
    'spec.open',
    { future: { a: [1, { b: null }], c: 1.5 }, empty: {}, none: [] },
  ],
  [
    'an embedded resource',
    () => thing('embedded', '{template: {apiVersion: v1, kind: Pod, metadata: {name: a, labels: {x: one}}, spec: {new: 1}}}'),
    thingPath('embedded'),
    'spec.template',
    { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a', labels: { x: 'one' } }, spec: { new: 1 } },
  ],
  ['int-or-string as a number', () => thing('number', '{port: 80}'), thingPath('number'), 'spec.port', 80],
  ['int-or-string as a text', () => thing('text', '{port: "80"}'), thingPath('text'), 'spec.port', '80'],
  [
    'int-or-string of a built-in kind',
    () =>
      `apiVersion: v1\nkind: Service\nmetadata: {name: mixed, namespace: ${rig.namespace}}\nspec:\n  ports: [{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: 8081}]\n`,
    '/api/v1/NS/services/mixed',
    'spec.ports',
    [
      { name: 'a', port: 80, targetPort: 'web' },
      { name: 'b', port: 81, targetPort: 8081 },
    ],
  ],
  ['null where it is allowed', () => thing('nullable', '{maybe: null}'), thingPath('nullable'), 'spec.maybe', null],
  ['null where a default fills in', () => thing('default', '{filled: null}'), thingPath('default'), 'spec.filled', 'yes-please'],
  ['an empty list', () => thing('list', '{list: []}'), thingPath('list'), 'spec.list', []],
  ['an empty mapping', () => thing('map', '{map: {}}'), thingPath('map'), 'spec.map', {}],
  [
    'an empty text',
    () => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty, namespace: ${rig.namespace}}\ndata: {a: ""}\n`,
    '/api/v1/NS/configmaps/empty',
    'data',
    { a: '' },
  ],
];

const at = (object: unknown, part: string) =>
  part.split('.').reduce<unknown>((value, field) => (value as Record<string, unknown> | undefined)?.[field], object);

describe('T40 what is sent is what was written', () => {
  it.each(ROWS)('T40 %s', async (_name, text, path, part, wanted) => {
    await using agent = await start();
    const before = recorder.applies().length;
    const target = await rig.broker.publish(text());
    agent.reconciler.offer(target);
    await rig.broker.applied(target);
    const place = inNamespace(path).replace('GROUP', group);
    const sent = recorder
      .applies()
      .slice(before)
      .find((request) => request.path.startsWith(place));
    if (!sent?.body) throw new Error(`nothing was sent to ${place}`);
    const written = at(JSON.parse(sent.body), part);
    if (part !== 'spec.filled') expect(written).toEqual(wanted);
    const object = await live(place);
    if (Array.isArray(wanted)) expect(at(object, part)).toMatchObject(wanted);
    else expect(at(object, part)).toEqual(wanted);
    expect(await recorder.again(sent)).toBe(object.metadata.resourceVersion);
  });

  it('T40 a field of a newer API is refused by name, by us and not by dropping it', async () => {
    await using agent = await start();
    const before = recorder.applies().length;
    const target = await rig.broker.publish(
      `apiVersion: v1\nkind: Service\nmetadata: {name: newer}\nspec: {ports: [{port: 80, futureField: 1}], alsoNew: {}}\n---\n${thing('newer', '{futureField: 1}')}`,
    );
    agent.reconciler.offer(target);
    await rig.broker.until('refused', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    expect(
      rig.broker
        .eventsOf(target)[0]
        ?.objects.map(({ kind, reason, path }) => `${kind} ${reason} ${path}`)
        .sort(),
    ).toEqual([
      'Service unknown_field /spec/alsoNew',
      'Service unknown_field /spec/ports/0/futureField',
      'Thing unknown_field /spec/futureField',
    ]);
    expect(recorder.applies().length).toBe(before);
  });

  it.each([
    [
      'ports and environment of a container',
      () => `apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  containers:
    - name: a
      image: a
      ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}, {containerPort: 80, protocol: TCP}]
      env: [{name: A, value: hunter2}, {name: B}, {name: A, value: hunter3}]
`,
      ['duplicate_list_key /spec/containers/0/env/2', 'duplicate_list_key /spec/containers/0/ports/2'],
    ],
    [
      'items of a custom resource',
      () => thing('twice', '{items: [{name: a}, {name: b}, {name: a, value: 2}]}'),
      ['duplicate_list_key /spec/items/2'],
    ],
  ])('T40 duplicates among %s are named', async (_name, text, expected) => {
    await using agent = await start();
    const target = await rig.broker.publish(text());
    agent.reconciler.offer(target);
    await rig.broker.until('refused', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    const [event] = rig.broker.eventsOf(target);
    expect(event?.objects.map(({ reason, path }) => `${reason} ${path}`).sort()).toEqual(expected);
    expect(event?.objects[0]?.message).toMatch(/the item has the same .* as item 0 of the list/);
    expect(JSON.stringify(event?.objects)).not.toContain('hunter');
  });

  it.each([
    ['null where it is not nullable', '{strict: null}', '/spec/strict'],
    ['null for an object', '{open: null}', '/spec/open'],
    ['null for an int-or-string', '{port: null}', '/spec/port'],
    [
      'a label of an embedded resource that is no text',
      '{template: {apiVersion: v1, kind: Pod, metadata: {labels: {x: y}}}}',
      '/spec/template/metadata/labels/x',
    ],
  ])('T40 %s is refused before the definition exists, as the server does afterwards', async (_name, spec, path) => {
    await using agent = await start();
    const other = `${crypto.randomUUID()}.example.org`;
    const text = `${thing('strict', spec)}---\n${definition()}`.replaceAll(group, other);
    const refused = await rig.broker.publish(text);
    agent.reconciler.offer(refused);
    await rig.broker.until('refused', () => rig.broker.statuses.get(refused.stackId)?.phase === Phase.REFUSED);
    expect(rig.broker.eventsOf(refused)[0]?.objects.map((object) => object.path)).toEqual([path]);
    const sent = { accept: 'application/json', 'content-type': 'application/apply-patch+yaml' };
    const place = inNamespace(`/apis/${group}/v1/NS/things/strict?fieldManager=test&fieldValidation=Strict`);
    const answer = await rig.server.request('PATCH', place, thing('strict', spec.replace('x: y', 'x: true')), sent);
    expect(answer.status).toBeGreaterThanOrEqual(400);
  });
});

describe('T40 a Secret', () => {
  it.each([
    ['text that is no base64', 'data: {password: "hunter2-%%"}', 'none'],
    ['a list where text is wanted', 'stringData: {password: [hunter2]}', 'none'],
    ['a number where text is wanted', 'stringData: {password: 7777777}', 'none'],
    ['a mapping as data', 'data: {password: {hunter2: 7777777}}', 'none'],
    [
      'a type that is not its data',
      'type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: "hunter2 7777777"}',
      'full',
    ],
    ['a type that changes', 'type: kubernetes.io/basic-auth\nstringData: {password: hunter2}', 'full'],
  ] as const)('T40 with %s tells its value to no log, event, error or report', async (name, data, validation) => {
    const lines: string[] = [];
    const stream = new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk));
        done();
      },
    });
    await using agent = await start(pino({ level: 'trace' }, stream));
    const secret = (fields: string) =>
      `apiVersion: v1\nkind: Secret\nmetadata: {name: wrong-${name.replaceAll(/[ ,]/g, '-')}}\n${fields}\n`;
    const first = await rig.broker.publish(secret('stringData: {password: hunter2}'));
    agent.reconciler.offer(first);
    await rig.broker.applied(first);
    const second = await rig.broker.publish(secret(data), { after: first, validation });
    agent.reconciler.offer(second);
    await rig.broker.until('refused or failed', () => {
      const phase = rig.broker.statuses.get(second.stackId)?.phase;
      return phase === Phase.REFUSED || phase === Phase.FAILED;
    });
    const told = JSON.stringify([...rig.broker.eventsOf(second), rig.broker.statuses.get(second.stackId), lines], (_, value) =>
      typeof value === 'bigint' ? `${value}` : value,
    );
    expect(told).toContain(`wrong-${name.split(' ')[0]}`);
    expect(told).not.toMatch(/hunter2|7777777|aHVudGVyM/);
  });
});
