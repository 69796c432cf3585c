import { beforeAll, describe, expect, it } from 'vitest';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig, until } from '../e2e/rig.ts';
import type { TestProcess } from '../processes.ts';
import { metricsText } from '../scrape.ts';

/** What `/health` says, as far as it is read here. */
interface HealthPage {
  readonly status: string;
  readonly leader?: string;
}

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});

async function healthUrl(agent: TestProcess): Promise<string> {
  const { address } = await agent.line(({ msg }) => msg === 'health port is open');
  return `http://${String(address).replace('0.0.0.0', '127.0.0.1')}`;
}

async function look(agent: TestProcess): Promise<{ readonly ready: number; readonly page: HealthPage }> {
  const url = await healthUrl(agent);
  const [ready, page] = await Promise.all([fetch(`${url}/readyz`), fetch(`${url}/health`)]);
  return { ready: ready.status, page: (await page.json()) as HealthPage };
}

const leads = (agent: TestProcess) =>
  until(
    () => look(agent),
    ({ page }) => page.status === 'ready',
    60_000,
  );
const standsBy = (agent: TestProcess) =>
  until(
    () => look(agent),
    ({ page }) => page.status === 'standby',
    60_000,
  );

/** Two replicas of one agent: the one that leads, and the one that waits. */
async function twoReplicas(agent: AgentRecord) {
  const first = await rig.start(agent);
  await leads(first);
  const second = await rig.start(agent);
  await standsBy(second);
  return { first, second };
}

describe('replicas of one agent', () => {
  it('T42 one leads, the other is ready to take over; after kill -9 it does, and nothing is applied or pruned twice', {
    timeout: 240_000,
  }, async () => {
    const agent = await rig.register();
    const namespace = await rig.kube.namespace('replicas');
    const { first, second } = await twoReplicas(agent);
    const waiting = await look(second);
    expect(waiting.ready).toBe(200);
    expect(waiting.page.leader).not.toBe('');
    const [leading, standing] = await Promise.all([first, second].map(async (each) => metricsText(await healthUrl(each))));
    expect(leading).toContain('brokkr_agent_without_session_seconds 0');
    expect(standing).not.toMatch(/^brokkr_agent_without_session_seconds/m); // nobody is to be called for that
    const maps = (...names: string[]) => names.map((name) => configMap(namespace, name)).join('---\n');
    const stack = await rig.publish('replicas', maps('a', 'b'), agent.label);
    await rig.status(stack.id, healthyAt(1));
    const writers = new Set((await patches(agent, namespace)).map(({ userAgent }) => userAgent));
    expect(writers.size).toBe(1);

    await first.stop('SIGKILL');
    await rig.publish('replicas', maps('a'), agent.label);
    await leads(second);
    await rig.status(stack.id, healthyAt(2), 60_000);
    await until(
      async () => (await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/b`)).status,
      (status) => status === 404,
    );
    const events = await rig.events(agent.id);
    expect(events.filter(({ status }) => status !== 'SUCCESS')).toEqual([]);
    expect(await patches(agent, namespace)).toHaveLength(2); // a and b by the first; the second had nothing to apply
    const deletions = await rig.kube.auditEvents({ user: agent.user, verbs: ['delete'], namespace });
    expect(deletions.map(({ objectRef }) => objectRef?.name)).toEqual(['b']);
  });

  it('T42 a leader that ends in order gives its turn back at once', { timeout: 240_000 }, async () => {
    const agent = await rig.register();
    const { first, second } = await twoReplicas(agent);
    const stoppedAt = performance.now();
    expect(await first.stop()).toBe(0);
    await leads(second);
    expect(performance.now() - stoppedAt).toBeLessThan(14_000); // less than a Lease takes to lapse
  });

  it('T42 a leader whose Lease was taken works no more, and stands by', { timeout: 240_000 }, async () => {
    const agent = await rig.register();
    const only = await rig.start(agent);
    await leads(only);
    const path = `/apis/coordination.k8s.io/v1/namespaces/${agent.namespace}/leases`;
    const { items } = (await rig.kube.request('GET', path)).body as { items: { metadata: { name: string } }[] };
    expect(items).toHaveLength(1);
    const spec = { holderIdentity: 'somebody else', leaseDurationSeconds: 20 };
    const merge = { 'content-type': 'application/merge-patch+json' };
    expect((await rig.kube.request('PATCH', `${path}/${items[0]?.metadata.name}`, { spec }, merge)).status).toBe(200);
    const { page } = await standsBy(only);
    expect(page.leader).toBe('somebody else');
    await leads(only); // nobody renews it
  });

  it('an agent that may not use Leases says so and works alone', { timeout: 120_000 }, async () => {
    const agent = await rig.register();
    const rules = [{ apiGroups: [''], resources: ['configmaps', 'namespaces'], verbs: ['*'] }];
    const { kubeconfigPath } = await rig.kube.identity('no-leases', { rules });
    const only = await rig.start(agent, { kubeconfigPath });
    await only.line(({ msg }) => msg === 'leases may not be used: only one replica may run');
    await leads(only);
  });
});

async function patches(agent: AgentRecord, namespace: string) {
  return await rig.kube.auditEvents({ user: agent.user, verbs: ['patch'], namespace });
}
