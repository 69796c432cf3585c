import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { metricsText, scrape } from '../scrape.ts';
import { configMap, healthyAt, type Rig, startRig, until } from './rig.ts';

const PREFIX = 'brokkr_agent_';
let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
}, 240_000);

describe('the metrics of an agent', () => {
  it('count what it did, exactly, and tell how things are', { timeout: 240_000 }, async () => {
    const agent = await rig.register();
    const { namespace, label } = agent;
    const started = await rig.start(agent);
    const { address } = await started.line(({ msg }) => msg === 'health port is open');
    const url = `http://${String(address).replace('0.0.0.0', '127.0.0.1')}`;
    const maps = (...names: string[]) => names.map((name) => configMap(namespace, name)).join('---\n');

    const stack = await rig.publish('counted', maps('a', 'b', 'c'), label);
    await rig.status(stack.id, healthyAt(1), 120_000);
    const merge = { 'content-type': 'application/merge-patch+json' };
    await rig.kube.request('PATCH', `/api/v1/namespaces/${namespace}/configmaps/a`, { data: { key: 'edited' } }, merge);
    await until(
      () => scrape(url, PREFIX),
      (values) => values.get('drift_corrected_total{kind="ConfigMap"}') === 1,
    );
    await rig.publish('counted', `${maps('a')}---\n${configMap(namespace, 'b', '2')}`, label);
    await rig.status(stack.id, healthyAt(2), 60_000);
    const refused = `---\napiVersion: v1\nkind: Service\nmetadata: {name: wrong, namespace: ${namespace}}\nspec: {clusterIP: 1.2.3.4, ports: [{port: 80}]}\n`;
    const other = await rig.publish('refused', refused, label);
    await rig.status(other.id, ({ phase }) => phase === 'failed' || phase === 'refused' || phase === 'invalid', 60_000);

    const values = await scrape(url, PREFIX);
    const counted = Object.fromEntries(
      [...values].filter(([name]) => /^(apply_total|prune_total|objects|stack_health|drift_|watch_lists)/.test(name)),
    );
    expect(counted).toMatchObject({
      'apply_total{kind="ConfigMap",result="created"}': 3,
      'apply_total{kind="ConfigMap",result="configured"}': 2, // the correction and the change of b
      'apply_total{kind="Service",result="rejected"}': 1,
      'drift_detected_total{kind="ConfigMap",manager="controller"}': 1, // no person, by the name of the HTTP client
      'drift_corrected_total{kind="ConfigMap"}': 1,
      'prune_total{result="deleted",guard=""}': 1,
      'objects{state="applied"}': 2,
      'objects{state="deleting"}': 0,
      'stack_health{health="healthy"}': 1,
      'watch_lists_total{resource="configmaps"}': 1,
    });
    expect(values.get('apply_duration_seconds_count')).toBe(6);
    expect(values.get('sync_lag_seconds_count')).toBe(2);
    expect(values.get('sync_phase_duration_seconds_count{phase="applying"}')).toBeGreaterThanOrEqual(3);
    expect(values.get('kubernetes_operations_total{operation="delete",code="200"}')).toBe(1);
    expect(values.get('kubernetes_concurrency_limit')).toBeGreaterThanOrEqual(4);
    expect(values.get('kubernetes_circuit_open')).toBe(0);
    expect(values.get('without_session_seconds')).toBe(0);
    expect(values.get('tcp_segments_total{sent="first"}')).toBeGreaterThan(0);
    expect(values.get('inventory_bytes')).toBeGreaterThan(50);
    expect(Math.abs(values.get('clock_offset_seconds') ?? Number.NaN)).toBeLessThan(2);
    expect(values.get('watch_silence_seconds{resource="configmaps"}')).toBeLessThan(90);
    expect(values.get('yaml_tasks_total{task="prepare"}')).toBeGreaterThanOrEqual(3);
    expect(values.get('process_resident_memory_bytes')).toBeGreaterThan(10_000_000);
    expect(values.has('nodejs_eventloop_lag_seconds')).toBe(true);
    expect(JSON.stringify([...values.keys()])).not.toMatch(/counted|refused"|wrong/); // no label names a stack or an object
  });

  it('tell that the broker cannot be reached, and why', async () => {
    const agent = await rig.register();
    const started = await rig.start(agent, { brokerUrl: 'http://127.0.0.1:1' });
    const { address } = await started.line(({ msg }) => msg === 'health port is open');
    const url = `http://${String(address).replace('0.0.0.0', '127.0.0.1')}`;
    const values = await until(
      () => scrape(url, PREFIX),
      (found) => (found.get('connection_failures_total{to="broker",kind="refused"}') ?? 0) > 0,
    );
    expect(values.get('session_up{tier="stream"}')).toBe(0);
    const page = await metricsText(url);
    expect(page).toContain('brokkr_agent_without_session_seconds +Inf');
    expect(page).not.toMatch(/^brokkr_agent_broker_certificate_expiry_seconds/m);
  });

  it('are all on the reference page', async () => {
    const agent = await rig.register();
    const started = await rig.start(agent);
    const { address } = await started.line(({ msg }) => msg === 'health port is open');
    const text = await metricsText(`http://${String(address).replace('0.0.0.0', '127.0.0.1')}`);
    const declared = [...text.matchAll(/^# TYPE (brokkr_\w+) (\w+)$/gm)].map(([, name, type]) => `| \`${name}\` | ${type} |`);
    const page = await readFile('docs/reference/metrics.md', 'utf8');
    expect(declared.length).toBeGreaterThan(30);
    expect(declared.filter((row) => !page.includes(row))).toEqual([]);
  });
});
