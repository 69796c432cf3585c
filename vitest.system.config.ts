import { mergeConfig } from 'vitest/config';
import { SERVER_VARIABLE } from './test/debian-postgresql.ts';
import base from './vitest.config.ts';

/** What needs root, Debian packages or long runs: `npm run test:system`. One file at a time, they share the machine. */
const config = mergeConfig(base, {
  test: { fileParallelism: false, testTimeout: 10 * 60_000, passWithNoTests: true },
});
/** What has to be true of any PostgreSQL is asked of Debian's as well. */
const onDebian = ['broker/postgres/tls.test.ts', 'test/e2e/broker-process.test.ts', 'test/e2e/robustness.test.ts'];
process.env[SERVER_VARIABLE] = 'debian';
config.test = { ...config.test, include: ['test/system/**/*.test.ts', ...onDebian], exclude: ['**/node_modules/**'] };

export default config;
