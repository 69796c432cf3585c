import { randomUUID } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { it } from 'vitest';
import { createYamlPool } from '#lib/yaml-pool.ts';
import { testDatabase } from '../../test/postgres.ts';
import { StackEntity } from './entities.ts';
import { ADMIN, testService } from './testing.ts';

it('bench', async () => {
  const db = await (await testDatabase()).open({ poolMax: 10 }, { entities: [StackEntity] });
  const yaml = createYamlPool({ maxThreads: 1 });
  const service = testService({ db, yaml });
  for (const [n, pad] of [
    [1000, 20],
    [1000, 20],
    [1000, 20],
    [1000, 800],
    [1000, 800],
    [1000, 800],
    [5000, 800],
  ] as const) {
    const { stack } = await service.as(ADMIN).createStack({ name: `s-${randomUUID()}` });
    const tag = randomUUID();
    const text = Array.from(
      { length: n },
      (_, i) =>
        `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c${i}\n  namespace: default\n  labels:\n    app: x${i}\ndata:\n  key: "${tag}"\n  more: "${`abc${i} def`.repeat(pad / 8)}"\n`,
    ).join('---\n');
    const h = monitorEventLoopDelay({ resolution: 1 });
    h.enable();
    for (const again of [false, true]) {
      h.reset();
      const t = performance.now();
      const r = await service
        .as(ADMIN)
        .createDeploymentObject({ stackId: stack?.id ?? '', yamlContent: again ? text.replace('"abc0', '"abd0') : text });
      console.log(
        n,
        pad,
        again ? '1 changed' : 'new',
        text.length,
        (performance.now() - t).toFixed(1),
        'ms; loop max',
        (h.max / 1e6).toFixed(1),
        'p99',
        (h.percentile(99) / 1e6).toFixed(1),
        r.deploymentObject?.objectCount,
      );
    }
  }
  await yaml[Symbol.asyncDispose]();
});
