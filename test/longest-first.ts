import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Half a minute and more, most of it waiting; the longest first. Whatever begins late and lasts makes the whole run wait. */
const LONGEST = [
  'test/soak/soak.test.ts',
  'test/apply/idle.test.ts',
  'test/e2e/faults.test.ts',
  'test/apply/rights.test.ts',
  'test/apply/drift.test.ts',
  'test/apply/leader.test.ts',
  'test/apply/outages.test.ts',
  'test/e2e/up.test.ts',
  'test/apply/order.test.ts',
  'test/e2e/main-job.test.ts',
  'agent/reconcile-rollback.test.ts',
  'test/e2e/agent-webhooks.test.ts',
  'broker/webhooks/deliveries.test.ts',
  'broker/webhooks/agent-deliveries.test.ts',
  'test/e2e/commands.test.ts',
  'test/e2e/broker-process.test.ts',
  'test/apply/health.test.ts',
  'test/apply/inventory.test.ts',
  'test/apply/drift-modes.test.ts',
  'test/apply/fights.test.ts',
  'test/monitoring/live.test.ts',
];

/** Begins with the files that last longest; the others come in Vitest's own order. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const places = new Map(LONGEST.map((file, place) => [join(this.ctx.config.root, file), place]));
    for (const file of places.keys())
      if (!existsSync(file)) throw new Error(`test/longest-first.ts names ${file}, which is gone`);
    const place = ({ moduleId }: TestSpecification) => places.get(moduleId) ?? LONGEST.length;
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}
