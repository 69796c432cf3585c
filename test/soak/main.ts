/**
 * `npm run soak -- [--seed N] [--minutes M] [--operations K]`: a random operator against real parts, see soak.ts. Without a
 * seed one is drawn and printed; seed and number of operations repeat a run.
 */
import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from '../../hack/process.ts';

const { values } = parseArgs({
  options: { seed: { type: 'string' }, minutes: { type: 'string' }, operations: { type: 'string' } },
});
const { seed = String(randomInt(1, 2 ** 32 - 1)), operations, minutes = operations === undefined ? '20' : '600' } = values;
process.stderr.write(`seed ${seed}\n`);
const { status } = spawnSync(process.execPath, [join(ROOT, 'node_modules/.bin/vitest'), 'run', 'test/soak'], {
  cwd: ROOT,
  stdio: 'inherit',
  env: {
    ...process.env,
    BROKKR_SOAK_SEED: seed,
    BROKKR_SOAK_MINUTES: minutes,
    ...(operations !== undefined && { BROKKR_SOAK_OPERATIONS: operations }),
  },
});
process.exitCode = status ?? 1;
