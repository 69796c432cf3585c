import { beforeAll, describe, expect, it } from 'vitest';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig, until } from './rig.ts';

let rig: Rig;
let agent: AgentRecord;

beforeAll(async () => {
  rig = await startRig();
  agent = await rig.register();
  await rig.start(agent);
});

const found = async (namespace: string, name: string) =>
  (await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`)).status;

describe('the main job', () => {
  // C-003, C-009, C-012, C-030, C-050, N-010, N-024, N-088
  it('takes a manifest from publication to healthy objects, with one event', async () => {
    const namespace = await rig.kube.namespace('main');
    const yaml = `${configMap(namespace, 'settings')}---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ${namespace}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: registry.example.com/web:1}]}
`;
    const stack = await rig.publish('main', yaml, agent.label);
    await rig.status(stack.id, healthyAt(1));
    expect(await found(namespace, 'settings')).toBe(200);
    const events = (await rig.events(agent.id)).filter((event) => event.deployment_object_id === stack.objectId);
    expect(events).toMatchObject([{ event_type: 'APPLY', status: 'SUCCESS', generation: 1 }]);
  });

  it('sends nothing to the API server when nothing changed, whatever is published again', async () => {
    const namespace = await rig.kube.namespace('same');
    const yaml = configMap(namespace, 'a');
    const stack = await rig.publish('same', yaml, agent.label);
    await rig.status(stack.id, healthyAt(1));
    expect((await rig.publish('same', yaml, agent.label)).result).toBe('unchanged');
    const since = await rig.kube.auditMark();
    const again = await rig.broker.api('POST', `/api/v1/stacks/${stack.id}/deployment-objects`, `# only a comment\n${yaml}`, {
      'content-type': 'application/yaml',
    });
    expect(again.status).toBe(201);
    await rig.status(stack.id, healthyAt(2));
    expect(await rig.kube.auditEvents({ user: agent.user, since, namespace })).toEqual([]);
  });

  it('applies one changed object, prunes a removed one, and removes everything when the stack is deleted', async () => {
    const namespace = await rig.kube.namespace('life');
    const stack = await rig.publish(
      'life',
      `${configMap(namespace, 'a')}---\n${configMap(namespace, 'b')}---\n${configMap(namespace, 'c')}`,
      agent.label,
    );
    await rig.status(stack.id, healthyAt(1));
    const since = await rig.kube.auditMark();
    await rig.publish('life', `${configMap(namespace, 'a')}---\n${configMap(namespace, 'b', '2')}`, agent.label);
    await rig.status(stack.id, healthyAt(2));
    const changed = (await rig.kube.auditEvents({ user: agent.user, since, namespace, dryRun: false })).map(
      ({ verb, objectRef }) => `${verb} ${objectRef?.name}`,
    );
    expect(changed.filter((call) => /^(patch|delete)/.test(call)).sort()).toEqual(['delete c', 'patch b']);
    expect((await rig.broker.api('DELETE', `/api/v1/stacks/${stack.id}`)).status).toBe(204);
    await until(
      () => found(namespace, 'a'),
      (status) => status === 404,
    );
    await until(
      () => rig.broker.api('GET', `/api/v1/stacks/${stack.id}/status`),
      ({ status }) => status === 404,
    );
  });

  // C-041
  it('follows labels: added, the stack comes; removed, it is pruned', async () => {
    const namespace = await rig.kube.namespace('label');
    const stack = await rig.publish('by-label', configMap(namespace, 'a'), 'some-other-label');
    expect(
      (await rig.broker.api('POST', `/api/v1/agents/${agent.id}/labels`, { agent_id: agent.id, label: 'some-other-label' }))
        .status,
    ).toBe(201);
    await rig.status(stack.id, healthyAt(1));
    await rig.broker.api('DELETE', `/api/v1/agents/${agent.id}/labels/some-other-label`);
    await until(
      () => found(namespace, 'a'),
      (status) => status === 404,
    );
  });

  // C-051
  it('restores an object that somebody deleted or changed', async () => {
    const namespace = await rig.kube.namespace('drift');
    const stack = await rig.publish('drift', `${configMap(namespace, 'a')}---\n${configMap(namespace, 'b')}`, agent.label);
    await rig.status(stack.id, healthyAt(1));
    await rig.kube.request('DELETE', `/api/v1/namespaces/${namespace}/configmaps/a`);
    await until(
      () => found(namespace, 'a'),
      (status) => status === 200,
    );
    await rig.kube.request(
      'PATCH',
      `/api/v1/namespaces/${namespace}/configmaps/b`,
      { data: { key: 'wrong' } },
      { 'content-type': 'application/merge-patch+json' },
    );
    await until(
      () => rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/b`),
      ({ body }) => (body as { data?: { key?: string } }).data?.key === '1',
    );
  });

  it('restores an object after a restart with nothing changed, from content fetched again', async () => {
    const other = await rig.register();
    const first = await rig.start(other);
    const namespace = await rig.kube.namespace('cold');
    const stack = await rig.publish('cold', configMap(namespace, 'a'), other.label);
    await rig.status(stack.id, healthyAt(1));
    await first.stop();
    await rig.start(other);
    await until(
      () => rig.broker.api<{ transport: string | null }>('GET', `/api/v1/agents/${other.id}`),
      ({ body }) => body.transport === 'stream',
    );
    await rig.kube.request('DELETE', `/api/v1/namespaces/${namespace}/configmaps/a`);
    await until(
      () => found(namespace, 'a'),
      (status) => status === 200,
    );
  });

  // C-010
  it('reports YAML mistakes with line and column when the broker did not look, and applies nothing', async () => {
    const namespace = await rig.kube.namespace('opaque');
    const yaml = `${configMap(namespace, 'good')}---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: bad\n data: {}\n`;
    const stack = await rig.publish('opaque', yaml, agent.label, '&validation=none');
    const status = await rig.status(stack.id, ({ phase }) => phase === 'refused' || phase === 'failed');
    expect(JSON.stringify(status)).toMatch(/line/);
    const event = await until(
      async () => (await rig.events(agent.id)).find(({ deployment_object_id: id }) => id === stack.objectId),
      (value) => value !== undefined,
    );
    expect(event?.status).toBe('FAILURE');
    expect(`${event?.message} ${JSON.stringify(event?.objects)}`).toMatch(/line 1[0-9].*column|"line":1[0-9]/);
    expect(await found(namespace, 'good')).toBe(404);
  });

  // C-011, C-052
  it('refuses what its cluster does not know, and applies it by itself once the kind exists', async () => {
    const namespace = await rig.kube.namespace('kinds');
    const group = `${namespace}.example.com`;
    const yaml = `${configMap(namespace, 'beside')}---\napiVersion: ${group}/v1\nkind: Widget\nmetadata: {name: w, namespace: ${namespace}}\nspec: {size: 1}\n`;
    const stack = await rig.publish('kinds', yaml, agent.label);
    const refused = await rig.status(stack.id, ({ phase }) => phase === 'refused');
    expect(JSON.stringify(refused)).toMatch(/Widget/);
    expect(await found(namespace, 'beside')).toBe(404);
    const crd = {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `widgets.${group}` },
      spec: {
        group,
        scope: 'Namespaced',
        names: { plural: 'widgets', singular: 'widget', kind: 'Widget', listKind: 'WidgetList' },
        versions: [
          {
            name: 'v1',
            served: true,
            storage: true,
            schema: {
              openAPIV3Schema: {
                type: 'object',
                properties: { spec: { type: 'object', properties: { size: { type: 'integer' } } } },
              },
            },
          },
        ],
      },
    };
    expect((await rig.kube.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd)).status).toBe(201);
    await rig.status(stack.id, ({ applied_generation: applied }) => applied === 1, 60_000);
    expect(await found(namespace, 'beside')).toBe(200);
  });

  it('writes nothing while INACTIVE, deletes nothing, and catches up when it is ACTIVE again', async () => {
    const namespace = await rig.kube.namespace('inactive');
    const other = await rig.register();
    await rig.start(other);
    const stack = await rig.publish('inactive', configMap(namespace, 'a'), other.label);
    await rig.status(stack.id, healthyAt(1));
    await rig.broker.api('PUT', `/api/v1/agents/${other.id}`, { status: 'INACTIVE' });
    await until(
      () => rig.broker.api<{ transport: string | null }>('GET', `/api/v1/agents/${other.id}`),
      ({ body }) => body.transport === null,
    );
    await rig.publish('inactive', configMap(namespace, 'a', '2'), other.label);
    await rig.broker.api('DELETE', `/api/v1/agents/${other.id}/labels/${other.label}`);
    await new Promise((resolve) => setTimeout(resolve, 1000)); // time in which nothing may happen
    expect(await found(namespace, 'a')).toBe(200);
    await rig.broker.api('POST', `/api/v1/agents/${other.id}/labels`, { agent_id: other.id, label: other.label });
    await rig.broker.api('PUT', `/api/v1/agents/${other.id}`, { status: 'ACTIVE' });
    await rig.status(stack.id, healthyAt(2), 60_000);
  });
});
