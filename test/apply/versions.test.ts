import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('versions');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const text = (object: object) => `${JSON.stringify(object)}\n`;
const groupOf = (prefix: string) => `${prefix}-${rig.namespace}.example.org`;

/** A version of a definition whose resources have one string field. */
const version = (name: string, field: string, settings: object = {}) => ({
  ...{ name, served: true, storage: false },
  schema: {
    openAPIV3Schema: {
      type: 'object',
      properties: { spec: { type: 'object', properties: { [field]: { type: 'string' }, both: { type: 'string' } } } },
    },
  },
  ...settings,
});
const definition = (group: string, versions: object[]) =>
  text({
    ...{ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: `gears.${group}` } },
    spec: { group, scope: 'Namespaced', names: { kind: 'Gear', plural: 'gears', singular: 'gear' }, versions },
  });
const gear = (group: string, of: string, spec: object) =>
  text({ apiVersion: `${group}/${of}`, kind: 'Gear', metadata: { name: 'gear' }, spec });
const stored = { storage: true };

describe('an object in another version of its API', () => {
  it('T26 is updated in place, not pruned', async () => {
    const group = groupOf('served');
    const versions = definition(group, [version('v1', 'size', stored), version('v1beta1', 'size')]);
    await using agent = await rig.start();
    const first = await rig.sync(agent, yaml(versions, gear(group, 'v1beta1', { size: 'a', both: 'gone' })));
    const path = rig.path('gears', 'gear', `${group}/v1`);
    const { uid } = (await rig.get(path)).metadata;
    const mark = await rig.server.auditMark();
    const second = await rig.sync(agent, yaml(versions, gear(group, 'v1', { size: 'b' })), { after: first });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { configured: 1, unchanged: 1, deleted: 0 } });
    expect(await rig.get(path)).toMatchObject({ metadata: { uid }, spec: { size: 'b' } });
    expect((await rig.get(path)).spec).toEqual({ size: 'b' });
    expect(await rig.calls(mark, 'gears', 'delete')).toEqual([]);
  });

  it.each([
    ['still served', true],
    ['no longer served', false],
  ])('T26 whose fields the old version, %s, does not know is updated in place', async (_, served) => {
    const group = groupOf(`fields-${served}`);
    const path = rig.path('gears', 'gear', `${group}/v1`);
    await using agent = await rig.start();
    const old = definition(group, [version('v1alpha1', 'before', stored)]);
    const first = await rig.sync(agent, yaml(old, gear(group, 'v1alpha1', { before: 'a', both: 'a' })));
    const moved = definition(group, [version('v1', 'after', stored), version('v1alpha1', 'before', { served })]);
    const between = await rig.sync(agent, yaml(moved, gear(group, 'v1alpha1', { before: 'a', both: 'a' })), { after: first });
    const { uid } = (await rig.get(path)).metadata;

    const apply = await rig.server.request(
      ...(['PATCH', `${path}?fieldManager=proof&dryRun=All&force=true`] as const),
      { apiVersion: `${group}/v1`, kind: 'Gear', metadata: { name: 'gear' }, spec: { after: 'b' } },
      { 'content-type': 'application/apply-patch+yaml' },
    );
    expect(apply).toMatchObject({ status: 500, body: { message: expect.stringContaining('field not declared in schema') } });

    const second = await rig.sync(agent, yaml(moved, gear(group, 'v1', { after: 'b', both: 'a' })), { after: between });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { deleted: 0, failed: 0 } });
    const live = await rig.get(path);
    expect(live.spec).toEqual({ after: 'b', both: 'a' });
    expect(live.metadata.uid).toBe(uid);
    expect(live.metadata.managedFields).toMatchObject([{ operation: 'Apply', apiVersion: `${group}/v1` }]);
  });
});

describe('a kind that moved to another API group', () => {
  it('T26 cannot be an Ingress on this server, which serves it in one group only', async () => {
    const { status } = await rig.server.request('GET', '/apis/extensions/v1beta1');
    expect(status).toBe(404);
  });

  it('T26 is updated in place when both groups serve the same objects, as they do Events', async () => {
    const name = 'moved.17';
    const involved = { kind: 'ConfigMap', namespace: rig.namespace, name: 'x', apiVersion: 'v1' };
    const eventTime = '2026-01-01T00:00:00.000000Z';
    const common = { metadata: { name }, eventTime, reason: 'Moved', type: 'Normal', action: 'Move' };
    const core = text({
      ...{ apiVersion: 'v1', kind: 'Event', ...common, message: 'm' },
      ...{ involvedObject: involved, reportingComponent: 'example.org/test', reportingInstance: 'one' },
    });
    const moved = text({
      ...{ apiVersion: 'events.k8s.io/v1', kind: 'Event', ...common, note: 'm' },
      ...{ regarding: involved, reportingController: 'example.org/test', reportingInstance: 'one' },
    });
    await using agent = await rig.start();
    const first = await rig.sync(agent, core);
    const path = rig.path('events', name);
    const { uid } = (await rig.get(path)).metadata;
    const mark = await rig.server.auditMark();
    const second = await rig.sync(agent, moved, { after: first });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { configured: 1 } });
    expect((await rig.get(path)).metadata.uid).toBe(uid);
    expect(await rig.calls(mark, 'events', 'delete')).toEqual([]);
  });
});
