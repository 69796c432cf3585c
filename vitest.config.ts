import { existsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/** What a whole run shares: the control plane and the PostgreSQL cluster, each started once. */
const globalSetup = ['test/global-kube.ts', 'test/global-postgres.ts'].filter((file) =>
  existsSync(new URL(file, import.meta.url)),
);

export default defineConfig({
  test: {
    include: ['{lib,flows,broker,agent,gateway,cli,hack,test}/**/*.test.ts'],
    exclude: ['test/system/**', 'test/bench/**', '**/node_modules/**', 'hack/lint/**'],
    globalSetup,
    pool: 'forks', // real processes, signals and exit codes
    maxWorkers: 2,
    testTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } }, // for busy machines; a condition that holds costs nothing
    hookTimeout: 20 * 60_000, // the first hook of a first run waits for the control plane to be built
    teardownTimeout: 30_000,
    reporters: process.env.BROKKR_TEST_REPORT ? ['default', 'json'] : ['default'],
    ...(process.env.BROKKR_TEST_REPORT ? { outputFile: { json: process.env.BROKKR_TEST_REPORT } } : {}),
  },
});
