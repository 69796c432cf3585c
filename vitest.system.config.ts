import { mergeConfig } from 'vitest/config';
import base from './vitest.config.ts';

/** What needs root, Debian packages or long runs: `npm run test:system`. One file at a time, they share the machine. */
const config = mergeConfig(base, {
  test: { fileParallelism: false, testTimeout: 10 * 60_000, passWithNoTests: true },
});
config.test = { ...config.test, include: ['test/system/**/*.test.ts'], exclude: ['**/node_modules/**'] };

export default config;
