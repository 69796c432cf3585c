import { describe, expect, it } from 'vitest';
import { createMetrics } from './metrics.ts';

describe('metrics', () => {
  it('writes the Prometheus text of one registry', async () => {
    const metrics = createMetrics({ processMetrics: false });
    const requests = metrics.counter({ name: 'requests_total', help: 'requests', labels: ['status'] });
    requests.inc({ status: 'ok' }, 2);
    let waiting = 3;
    metrics.gauge({ name: 'pool_waiting', help: 'waiting', collect: (gauge) => gauge.set(waiting) });
    metrics.histogram({ name: 'request_duration_seconds', help: 'duration', buckets: [0.1, 1] }).observe(0.5);
    waiting = 4;
    const text = await metrics.text();
    expect(text).toContain('brokkr_requests_total{status="ok"} 2');
    expect(text).toContain('brokkr_pool_waiting 4');
    expect(text).toContain('brokkr_request_duration_seconds_bucket{le="1"} 1');
    expect(text).not.toContain('process_');
    expect(metrics.contentType).toContain('text/plain');
  });

  it('adds the metrics of the process when asked, and keeps registries apart', async () => {
    expect(await createMetrics({ processMetrics: true }).text()).toContain('process_resident_memory_bytes');
    const one = createMetrics({ processMetrics: false });
    one.counter({ name: 'only_here_total', help: 'x' });
    expect(await createMetrics({ processMetrics: false }).text()).not.toContain('only_here');
  });

  it('refuses names that break the rules', () => {
    const metrics = createMetrics({ processMetrics: false });
    expect(() => metrics.counter({ name: 'requests', help: 'x' })).toThrow(/_total/);
    expect(() => metrics.gauge({ name: 'brokkr_twice', help: 'x' })).toThrow(/name of ours/);
  });
});
