import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Vitest global setup: one temporary directory for all that a run leaves behind, removed at its end. Returns the teardown. */
export async function setup(): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-')); // short: paths of sockets may have 107 bytes
  await chmod(dir, 0o711); // a database of root runs as another user
  process.env.TMPDIR = dir; // test processes inherit it
  return () => rm(dir, { recursive: true, force: true, maxRetries: 5 });
}
