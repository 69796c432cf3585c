import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import type { ValueObject } from '#lib/object.ts';
import { ApplyOptionsSchema } from '#proto/brokkr/v1/content_pb.js';
import type { KubeObject, ManagedFieldsEntry } from '../kube/objects.ts';
import { ignoredPointers, leaveIgnored } from './ignore.ts';
import type { PlannedObject } from './plan.ts';

const OURS = 'brokkr/0123456789ab';
const WEB = 'k:{"name":"web"}';

const owner = (manager: string, fieldsV1: object): ManagedFieldsEntry => ({
  ...{ manager, operation: manager === OURS ? 'Apply' : 'Update', fieldsV1: fieldsV1 as Record<string, unknown> },
});
const live = (spec: object, ...managedFields: ManagedFieldsEntry[]): KubeObject => ({
  metadata: { name: 'w', uid: 'u', resourceVersion: '1', managedFields },
  spec,
});
const left = (spec: ValueObject, pointer: string, object: KubeObject) => {
  const desired = { spec };
  leaveIgnored(desired, [pointer], object, OURS);
  return desired.spec;
};

describe('an ignored field', () => {
  const replicas = { 'f:spec': { 'f:replicas': {} } };

  it.each<[string, KubeObject, object]>([
    ['is not sent when another manager owns it', live({ replicas: 5 }, owner('hpa', replicas)), { x: 1 }],
    ['is not sent when another one owns it too', live({ replicas: 5 }, owner(OURS, replicas), owner('hpa', replicas)), { x: 1 }],
    ['is sent as it is when only we own it', live({ replicas: 5 }, owner(OURS, replicas)), { replicas: 5, x: 1 }],
    ['is sent as it is when nobody owns it', live({ replicas: 5 }), { replicas: 5, x: 1 }],
    ['is sent as wanted when it is not there', live({}, owner('other', { 'f:spec': { 'f:x': {} } })), { replicas: 2, x: 1 }],
  ])('%s', (_, object, expected) => {
    expect(left({ replicas: 2, x: 1 }, '/spec/replicas', object)).toEqual(expected);
  });

  it('is found in an item by the keys of the item, wherever it stands', () => {
    const set = { 'f:spec': { 'f:containers': { [WEB]: { 'f:image': {} } } } };
    const object = live(
      {
        containers: [
          { name: 'new', image: 'n' },
          { name: 'web', image: 'live' },
        ],
      },
      owner('other', set),
    );
    const desired = {
      containers: [
        { name: 'web', image: 'ours' },
        { name: 'x', image: 'ours' },
      ],
    };
    expect(left(desired, '/spec/containers/*/image', object)).toEqual({
      containers: [{ name: 'web' }, { name: 'x', image: 'live' }],
    });
  });

  it('stays as it is inside a value that another manager owns as a whole', () => {
    const object = live({ list: [{ a: 'live' }] }, owner('other', { 'f:spec': { 'f:list': {} } }));
    expect(left({ list: [{ a: 'ours', b: 'ours' }] }, '/spec/list/0/a', object)).toEqual({ list: [{ a: 'live', b: 'ours' }] });
  });

  it('may have slashes and tildes in its name', () => {
    const object = live({ 'a/b~c': 'live' });
    expect(left({ 'a/b~c': 'ours', x: 1 }, '/spec/a~1b~0c', object)).toEqual({ 'a/b~c': 'live', x: 1 });
  });
});

describe('rules', () => {
  const options = create(ApplyOptionsSchema, {
    ignore: [
      { group: 'apps', kind: 'Deployment', paths: ['/spec/replicas'] },
      { namespace: 'shop', paths: ['/metadata/annotations/x'] },
      { kind: 'Deployment', paths: ['/of/another/group'] },
      { group: 'apps', kind: 'Deployment', name: 'other', paths: ['/of/another/name'] },
    ],
  });

  it('hold for the objects they describe', () => {
    const web = { group: 'apps', version: 'v1', kind: 'Deployment', namespace: 'shop', name: 'web' } as PlannedObject;
    expect(ignoredPointers(options, web)).toEqual(['/spec/replicas', '/metadata/annotations/x']);
    expect(ignoredPointers(options, { ...web, kind: 'Service', group: '', namespace: 'x' })).toEqual([]);
  });
});
