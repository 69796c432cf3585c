import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDataDir } from './data-dir.ts';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-data-'));
});
afterEach(() => rm(dir, { recursive: true }));

/** Of a process that lives as long as this test and is not ours. */
const otherPid = process.ppid;

describe('data directory', () => {
  it('is another one while a live process holds it', async () => {
    const path = join(dir, 'agent');
    await using first = await openDataDir([path]);
    await writeFile(join(first.path, 'lock'), String(otherPid));
    await using second = await openDataDir([path]);
    expect(second.path).toBe(`${path}-2`);
  });

  it('is taken over from a process that was killed', async () => {
    const path = join(dir, 'agent');
    const first = await openDataDir([path]);
    await writeFile(join(first.path, 'lock'), '4194305'); // above the highest process id of Linux
    await using second = await openDataDir([path]);
    expect(second.path).toBe(path);
  });

  it('is the next one that can be written, or a clear error', async () => {
    await writeFile(join(dir, 'file'), '');
    await using found = await openDataDir([join(dir, 'file', 'below'), join(dir, 'good')]);
    expect(found.path).toBe(join(dir, 'good'));
    await expect(openDataDir([join(dir, 'file', 'below')])).rejects.toThrow(/no data directory can be used: .*ENOTDIR/);
  });
});
