import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { tryLock } from './build-lock.ts';
import { startProgram } from './processes.ts';
import { findGo } from './toolchain.ts';

/** The programs a control plane needs, plus kubectl, in the order they are built. */
export const programNames = ['etcd', 'kube-apiserver', 'kubectl', 'kube-controller-manager', 'kwok'] as const;

/** One of the programs of the control plane. */
export type ProgramName = (typeof programNames)[number];

/** Programs that exist, or will once they are built. */
export interface Binaries {
  /** The absolute path of a program; waits for its build, rejects when that failed or the program was not wanted. */
  path(name: ProgramName): Promise<string>;
  /** Settles when every wanted program exists. */
  readonly done: Promise<void>;
}

/** What `buildControlPlane` is given. */
export interface BuildOptions {
  /** `BROKKR_KUBE_BIN` and `KUBEBUILDER_ASSETS` name directories with programs, `XDG_CACHE_HOME` moves the cache. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told what is being built and how long that may take; one call a line. */
  readonly progress: (line: string) => void;
  /** Default: all of them. The order here is the order of building. */
  readonly want?: readonly ProgramName[];
}

const kubernetesVersion = 'v1.36.3';
const moduleDir = import.meta.dirname;

/** Package to build and the minutes it takes on two cores with an empty build cache, built in this order. */
const sources: Readonly<Record<ProgramName, { readonly package: string; readonly minutes: number }>> = {
  etcd: { package: 'go.etcd.io/etcd/server/v3', minutes: 1 },
  'kube-apiserver': { package: 'k8s.io/kubernetes/cmd/kube-apiserver', minutes: 4 },
  kubectl: { package: 'k8s.io/kubernetes/cmd/kubectl', minutes: 1 },
  'kube-controller-manager': { package: 'k8s.io/kubernetes/cmd/kube-controller-manager', minutes: 1 },
  kwok: { package: 'sigs.k8s.io/kwok/cmd/kwok', minutes: 1 },
};

/** No debug data (a sixth less time), and the version text that a release build would carry. */
const flags: readonly string[] = [
  '-trimpath',
  '-gcflags=all=-dwarf=false',
  '-ldflags',
  [
    '-s -w',
    `gitVersion=${kubernetesVersion}`,
    'gitMajor=1',
    'gitMinor=36',
    'gitTreeState=clean',
    'gitCommit=0000000000000000000000000000000000000000',
    'buildDate=2026-07-22T18:07:38Z',
  ].join(' -X k8s.io/component-base/version.'),
];

/**
 * Finds or builds the programs of a Kubernetes control plane. Looked up one by one in `BROKKR_KUBE_BIN`,
 * `KUBEBUILDER_ASSETS` and the cache (`$XDG_CACHE_HOME/brokkr/kube-v1.36.3-<hash>/bin`); what is missing is built from
 * Go modules, once a machine and one after the other, and put into the cache. Returns at once; callers begin with the
 * programs that are ready. An abort of `signal` ends the build; what is finished stays.
 */
export function buildControlPlane({ env, progress, want = programNames }: BuildOptions, signal: AbortSignal): Binaries {
  const ready = new Map(want.map((name) => [name, Promise.withResolvers<string>()]));
  for (const { promise } of ready.values()) promise.catch(() => undefined); // failures also reach `done`
  const found = (name: ProgramName, path: string) => ready.get(name)?.resolve(path);
  const done = findOrBuild({ env, progress, want, found }, signal);
  done.catch((error: unknown) => {
    for (const { reject } of ready.values()) reject(error);
  });
  return {
    done,
    path: (name) => ready.get(name)?.promise ?? Promise.reject(new Error(`${name} was not asked for`)),
  };
}

interface Work extends Required<BuildOptions> {
  readonly found: (name: ProgramName, path: string) => void;
}

async function findOrBuild({ env, progress, want, found }: Work, signal: AbortSignal): Promise<void> {
  const cacheDir = join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'brokkr');
  const target = join(cacheDir, `kube-${kubernetesVersion}-${await recipeHash()}`);
  const bin = join(target, 'bin');
  const given = [env.BROKKR_KUBE_BIN ?? '', env.KUBEBUILDER_ASSETS ?? ''].filter((dir) => dir !== '');

  const missing = await announce(want, [...given, bin], found);
  if (missing.length === 0) return;
  await mkdir(bin, { recursive: true });
  await using _lock = await waitForLock(join(target, 'build.lock'), { missing, bin, found, progress }, signal);
  const left = await announce(missing, [bin], found);
  if (left.length === 0) return;
  const go = await findGo({ env, cacheDir, progress }, signal);
  progress(`building ${left.length} Kubernetes programs from source, once on this machine`);
  for (const [index, name] of left.entries()) {
    const { minutes } = sources[name];
    progress(`building ${name} (${index + 1} of ${left.length}), about ${minutes} min on two cores`);
    const began = systemClock.monotonic();
    await compile({ go, name, target, env }, signal);
    progress(`built ${name} in ${Math.round((systemClock.monotonic() - began) / 1000)} s`);
    found(name, join(bin, name));
  }
}

/** Reports the programs that exist in one of `dirs`; returns the others. */
async function announce(names: readonly ProgramName[], dirs: readonly string[], found: Work['found']): Promise<ProgramName[]> {
  const missing: ProgramName[] = [];
  for (const name of names) {
    const path = await firstExecutable(dirs.map((dir) => join(dir, name)));
    if (path === undefined) missing.push(name);
    else found(name, path);
  }
  return missing;
}

interface Waiting extends Pick<Work, 'found' | 'progress'> {
  readonly missing: readonly ProgramName[];
  readonly bin: string;
}

/** Waits without bound while another process builds (its end frees the lock), taking over what that one finishes. */
async function waitForLock(path: string, { missing, bin, found, progress }: Waiting, signal: AbortSignal) {
  for (let told = false; ; told = true) {
    const lock = await tryLock(path);
    if (lock !== undefined) return lock;
    if (!told) progress('another process builds the control plane: waiting for it');
    await announce(missing, [bin], found);
    await systemClock.sleep(500, signal);
  }
}

interface Compilation extends Pick<BuildOptions, 'env'> {
  readonly go: string;
  readonly name: ProgramName;
  readonly target: string;
}

/** Builds one program and renames it into place whole. The output of go is kept when it fails. */
async function compile({ go, name, target, env }: Compilation, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const logPath = join(target, `${name}.log`);
  const partial = join(target, 'bin', `.${name}.${process.pid}`);
  await rm(logPath, { force: true });
  const program = startProgram({
    name: 'go',
    command: go,
    args: ['build', ...flags, '-o', partial, sources[name].package],
    logPath,
    cwd: moduleDir,
    // GOGC: 8 % faster for some memory. GOFLAGS of the user must not change what is built.
    env: { ...env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0', GOGC: '400', GOFLAGS: '-mod=readonly', GOWORK: 'off' },
  });
  const onAbort = () => void program.stop('SIGINT'); // go starts no more compilers; those at work end by themselves
  signal.addEventListener('abort', onAbort, { once: true });
  const end = await program.exited.finally(() => signal.removeEventListener('abort', onAbort));
  if (end === 'exit code 0') {
    await rename(partial, join(target, 'bin', name));
    await rm(logPath, { force: true });
    return;
  }
  await rm(partial, { force: true });
  signal.throwIfAborted();
  throw new Error(`building ${name} failed (${end}); the whole output is in ${logPath}:\n${program.tail()}`);
}

/** Twelve digits that change whenever the binaries would. */
async function recipeHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(join(moduleDir, file)));
  const packages = programNames.map((name) => sources[name].package);
  hash.update(JSON.stringify([flags, packages, process.platform, process.arch]));
  return hash.digest('hex').slice(0, 12);
}

async function firstExecutable(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // not there: the next directory
    }
  }
  return undefined;
}
