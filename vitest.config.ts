import { homedir } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/longest-first.ts';

// Kept from run to run where the programs keep theirs (bin/launch.js): half the start of each test file, program and thread.
process.env.NODE_COMPILE_CACHE ||= join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'brokkr', 'node');

export default defineConfig({
  test: {
    include: ['{lib,flows,broker,agent,gateway,cli,hack,test}/**/*.test.ts'],
    exclude: ['test/system/**', 'test/bench/**', '**/node_modules/**', 'hack/lint/**'],
    // shared by a whole run: a directory, the control plane and the PostgreSQL cluster, each started once
    globalSetup: ['test/global-directory.ts', 'test/global-kube.ts', 'test/global-postgres.ts'],
    pool: 'forks', // real processes, signals and exit codes
    maxWorkers: 3, // most files wait most of the time
    sequence: { sequencer: LongestFirst },
    testTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } }, // for busy machines; a condition that holds costs nothing
    hookTimeout: 20 * 60_000, // the first hook of a first run waits for the control plane to be built
    teardownTimeout: 30_000,
    reporters: process.env.BROKKR_TEST_REPORT ? ['default', 'json'] : ['default'],
    ...(process.env.BROKKR_TEST_REPORT ? { outputFile: { json: process.env.BROKKR_TEST_REPORT } } : {}),
  },
});
