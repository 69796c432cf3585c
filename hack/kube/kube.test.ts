import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildControlPlane, type ProgramName, programNames } from './binaries.ts';
import { tryLock } from './build-lock.ts';
import { killLeftovers } from './leftovers.ts';
import { processIdentity, startProgram } from './processes.ts';

const { signal } = new AbortController();
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-hack-kube-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** The id of a process that has ended and been reaped. */
async function deadPid(): Promise<number> {
  const child = spawn('true');
  await once(child, 'exit');
  return child.pid ?? 0;
}

describe('the build lock', () => {
  it('is held by one and free again afterwards', async () => {
    const path = join(dir, 'lock');
    const first = await tryLock(path);
    expect(first).toBeDefined();
    expect(await tryLock(path)).toBeUndefined();
    await first?.[Symbol.asyncDispose]();
    expect(await tryLock(path)).toBeDefined();
  });

  it('is taken over from a process that is gone, and from one whose id another process has now', async () => {
    const path = join(dir, 'lock');
    await writeFile(path, `${await deadPid()} linux:1`);
    expect(await tryLock(path)).toBeDefined();
    await writeFile(path, `${process.pid} linux:1`);
    expect(await tryLock(path)).toBeDefined();
  });
});

describe('the programs of the control plane', () => {
  const fakePrograms = async (name: string, programs: readonly ProgramName[]) => {
    const bin = join(dir, name);
    await mkdir(bin);
    for (const program of programs) {
      await writeFile(join(bin, program), '');
      await chmod(join(bin, program), 0o755);
    }
    return bin;
  };

  it('come from BROKKR_KUBE_BIN, then from KUBEBUILDER_ASSETS, without a build', async () => {
    const own = await fakePrograms('own', ['etcd']);
    const assets = await fakePrograms('assets', programNames);
    const env = { BROKKR_KUBE_BIN: own, KUBEBUILDER_ASSETS: assets, XDG_CACHE_HOME: join(dir, 'cache') };
    const lines: string[] = [];
    const binaries = buildControlPlane({ env, progress: (line) => lines.push(line) }, signal);
    await binaries.done;
    expect(await binaries.path('etcd')).toBe(join(own, 'etcd'));
    expect(await binaries.path('kwok')).toBe(join(assets, 'kwok'));
    expect(lines).toEqual([]);
  });

  it('without any toolchain fail with the three ways out', async () => {
    const env = { PATH: dir, XDG_CACHE_HOME: join(dir, 'cache') };
    const binaries = buildControlPlane({ env, progress: () => undefined, want: ['etcd'] }, signal);
    await expect(binaries.path('etcd')).rejects.toThrow(/install Go 1\.26.*KUBECONFIG.*BROKKR_KUBE_BIN/);
    await expect(binaries.path('kwok')).rejects.toThrow('kwok was not asked for');
  });
});

describe('programs', () => {
  it('keep what they wrote and say how they ended', async () => {
    const program = startProgram({
      name: 'talker',
      command: 'sh',
      args: ['-c', 'echo spoken; exit 3'],
      logPath: join(dir, 'log'),
      env: { PATH: '/usr/bin:/bin' },
    });
    expect(await program.exited).toBe('exit code 3');
    expect(program.running()).toBe(false);
    expect(program.tail()).toBe('spoken');
  });

  it('of a dead owner are killed if their command line names the directory, others are left alone', async () => {
    const start = (script: string) => spawn('sh', ['-c', `${script}; read line`]); // waits for its stdin, without a child of its own
    const [ours, other] = [start(`: ${dir}`), start(':')];
    const owner = { pid: await deadPid(), identity: 'linux:1' };
    await writeFile(join(dir, 'pids.json'), JSON.stringify({ owner, pids: [ours.pid, other.pid] }));
    await killLeftovers(dir, signal);
    expect(await processIdentity(ours.pid ?? 0)).toBeUndefined();
    expect(await processIdentity(other.pid ?? 0)).toBeDefined();
    await expect(readFile(join(dir, 'pids.json'))).rejects.toThrow('ENOENT');
    other.kill('SIGKILL');
    await once(other, 'exit');
  });

  it('of a living owner are not touched', async () => {
    const owner = { pid: process.pid, identity: await processIdentity(process.pid) };
    await writeFile(join(dir, 'pids.json'), JSON.stringify({ owner, pids: [] }));
    await expect(killLeftovers(dir, signal)).rejects.toThrow(`in use by process ${process.pid}`);
  });
});
