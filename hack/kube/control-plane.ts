import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { abortable } from '#lib/signal.ts';
import type { Binaries, ProgramName } from './binaries.ts';
import { awaitNode, createNode, prepareCluster } from './bootstrap.ts';
import { type AuditMode, apiServerArgs, controllerManagerArgs, etcdArgs, kwokArgs } from './command-lines.ts';
import { writeKubeconfig } from './kubeconfig.ts';
import { forgetPrograms, killLeftovers, recordPrograms } from './leftovers.ts';
import { type Program, startProgram } from './processes.ts';
import { createKubeClient, type KubeClient } from './request.ts';
import { openState, type Ports, type State } from './state.ts';

/** What `startControlPlane` is given. */
export interface ControlPlaneOptions {
  readonly binaries: Binaries;
  /** State: data, keys, certificates, logs. Used again it continues with the same objects, tokens and (if free) ports. */
  readonly dir: string;
  /** Told what is waited for and what ends unasked; one call a line. */
  readonly progress: (line: string) => void;
  /** Controllers and one kwok node, so that namespaces, Deployments and Jobs live. Default true. */
  readonly withControllers?: boolean;
  /** Default `blocking`. */
  readonly audit?: AuditMode;
  readonly ports?: Partial<Ports>;
}

/** A user of the control plane. */
export interface Identity {
  readonly token: string;
  readonly kubeconfigPath: string;
}

/** A running control plane on the loopback interface. Disposing it ends every program at once and keeps the directory. */
export interface ControlPlane extends AsyncDisposable {
  /** `https://127.0.0.1:port`. */
  readonly url: string;
  /** PEM of the server's certificate authority. */
  readonly caData: string;
  /** Of the `admin` identity. */
  readonly kubeconfigPath: string;
  /** `admin` is exempt from RBAC and from Priority and Fairness; `ops` has every right by RBAC and is exempt from neither. */
  readonly identities: { readonly admin: Identity; readonly ops: Identity };
  /** JSON lines; absent with `audit: 'off'`. */
  readonly auditLogPath: string;
  /** Asks as `admin`. */
  readonly request: KubeClient;
  /** Waits for its build where that still runs. */
  kubectlPath(): Promise<string>;
  /** Process ids of the programs that run now. */
  pids(): ReadonlyMap<ProgramName, number>;
  /** Settles when Deployments, Jobs and namespaces work; at once without controllers. */
  readonly controllersReady: Promise<void>;
  killApiServer(how?: NodeJS.Signals): Promise<void>;
  /** Resolves when the server is ready again, on the same port and data. */
  startApiServer(signal: AbortSignal): Promise<void>;
  restartApiServer(signal: AbortSignal): Promise<void>;
  stopEtcd(): Promise<void>;
  startEtcd(signal: AbortSignal): Promise<void>;
}

/** A program that is not ready after this long will not be: 3 s are usual, a busy machine takes several times that. */
const readyWithinMs = 90_000;

/**
 * Starts etcd and kube-apiserver and returns when the API is ready (about 4 s); the controllers follow behind, see
 * `controllersReady`. Waits for binaries that are still being built. `signal` bounds starting only, the whole of it with
 * the controllers; afterwards dispose of the result. Rejects, with nothing left running, when a program ends or does not
 * become ready.
 */
export async function startControlPlane(options: ControlPlaneOptions, signal: AbortSignal): Promise<ControlPlane> {
  const { binaries, progress, withControllers = true, audit = 'blocking' } = options;
  const dir = resolve(options.dir);
  await killLeftovers(dir, signal);
  const state = await openState(dir, options.ports ?? {});
  const { tokens, ports } = state;
  const url = `https://127.0.0.1:${ports.apiServer}`;
  const programs = createPrograms({ binaries, dir, progress });
  const closing = new AbortController();
  const starting = AbortSignal.any([signal, closing.signal]);

  const startEtcd = (stop: AbortSignal) =>
    programs.start('etcd', etcdArgs(state), () => answers(`http://127.0.0.1:${ports.etcd}/health`, stop), stop);
  const startApiServer = (stop: AbortSignal) =>
    programs.start('kube-apiserver', apiServerArgs(state, audit), () => isApiReady(dir, url, stop), stop);

  try {
    await startEtcd(starting);
    await startApiServer(starting);
    const caData = await readFile(join(dir, 'certs', 'apiserver.crt'), 'utf8');
    const identities = await writeKubeconfigs(state, url, caData);
    const request = createKubeClient({ url, caData, token: tokens.admin });
    await prepareCluster(request, starting);
    const controllersReady = withControllers ? startControllers({ programs, state, request }, starting) : Promise.resolve();
    controllersReady.catch((error: unknown) => {
      if (!starting.aborted) progress(`the controllers did not start: ${String(error)}`);
    });
    return {
      url,
      caData,
      kubeconfigPath: identities.admin.kubeconfigPath,
      identities,
      auditLogPath: join(dir, 'audit.log'),
      request,
      controllersReady,
      kubectlPath: () => binaries.path('kubectl'),
      pids: programs.pids,
      killApiServer: (how = 'SIGKILL') => programs.stop('kube-apiserver', how),
      startApiServer,
      async restartApiServer(stop) {
        await programs.stop('kube-apiserver', 'SIGTERM');
        await startApiServer(stop);
      },
      stopEtcd: () => programs.stop('etcd', 'SIGKILL'),
      startEtcd,
      async [Symbol.asyncDispose]() {
        closing.abort(new Error('the control plane is being stopped'));
        await controllersReady.catch(() => undefined);
        await programs.stopAll();
      },
    };
  } catch (error) {
    await programs.stopAll();
    throw error;
  }
}

interface Controllers {
  readonly programs: Programs;
  readonly state: State;
  readonly request: KubeClient;
}

async function startControllers({ programs, state, request }: Controllers, signal: AbortSignal): Promise<void> {
  const { ports } = state;
  await createNode(request, signal);
  const isHealthy = (port: number) => answers(`http://127.0.0.1:${port}/healthz`, signal);
  // The readiness of the controller manager shows in `awaitNode`: its health page says less.
  await Promise.all([
    programs.start('kube-controller-manager', controllerManagerArgs(state), () => Promise.resolve(true), signal),
    programs.start('kwok', kwokArgs(state), () => isHealthy(ports.kwok), signal),
  ]);
  using deadline = systemClock.deadline(readyWithinMs, signal);
  await awaitNode(request, deadline.signal);
}

type Programs = ReturnType<typeof createPrograms>;

/** The programs of one state directory; at most one of each name runs. */
function createPrograms({ binaries, dir, progress }: Pick<ControlPlaneOptions, 'binaries' | 'dir' | 'progress'>) {
  const running = new Map<ProgramName, Program>();
  const stop = async (name: ProgramName, how: NodeJS.Signals) => {
    const program = running.get(name);
    running.delete(name);
    await program?.stop(how);
  };
  const warnOfEnd = async (name: ProgramName, program: Program) => {
    const end = await program.exited;
    if (running.get(name) === program) progress(`${name} ended unasked (${end}); its log is ${join(dir, 'logs', name)}.log`);
  };
  return {
    stop,
    pids: () => new Map([...running].map(([name, { pid }]) => [name, pid])),
    async start(name: ProgramName, args: readonly string[], isReady: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
      if (running.get(name)?.running() === true) throw new Error(`${name} already runs`);
      const command = await abortable(binaries.path(name), signal);
      signal.throwIfAborted();
      const env = { HOME: dir, PATH: '/usr/local/bin:/usr/bin:/bin' }; // nothing of the user's: proxies, kubeconfig
      const program = startProgram({ name, command, args, env, logPath: join(dir, 'logs', `${name}.log`) });
      running.set(name, program);
      await recordPrograms(dir, running);
      await untilReady(program, isReady, signal);
      void warnOfEnd(name, program);
    },
    async stopAll(): Promise<void> {
      await Promise.all([...running.keys()].map((name) => stop(name, 'SIGKILL')));
      await forgetPrograms(dir);
    },
  };
}

async function untilReady(program: Program, isReady: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  using deadline = systemClock.deadline(readyWithinMs, signal);
  while (!(await isReady())) {
    if (!program.running())
      throw new Error(`${program.name} ended before it was ready (${await program.exited}):\n${program.tail()}`);
    await systemClock.sleep(50, deadline.signal);
  }
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  const response = await fetch(url, { signal }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok === true;
}

async function isApiReady(dir: string, url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const caData = await readFile(join(dir, 'certs', 'apiserver.crt'), 'utf8'); // the server writes it on first start
    const { status } = await createKubeClient({ url, caData, token: '' })({ method: 'GET', path: '/readyz' }, signal);
    return status === 200;
  } catch {
    return false;
  }
}

async function writeKubeconfigs({ dir, tokens }: State, url: string, caData: string): Promise<ControlPlane['identities']> {
  const identity = async (name: keyof State['tokens']): Promise<Identity> => {
    const kubeconfigPath = join(dir, 'kubeconfigs', name);
    await writeKubeconfig(kubeconfigPath, { server: url, caData, token: tokens[name] });
    return { token: tokens[name], kubeconfigPath };
  };
  await identity('kcm');
  await identity('kwok');
  return { admin: await identity('admin'), ops: await identity('ops') };
}
