import { buildControlPlane } from '#kube/binaries.ts';
import { startControlPlane } from '#kube/control-plane.ts';
import type { Env } from '../contexts.ts';

/** The cluster that the agent of `brokkr up` works in. */
export interface Cluster extends AsyncDisposable {
  /** What the agent's environment needs beyond ours. */
  readonly agentEnv: Env;
  /** How a second terminal reaches it with kubectl, as words before `get …`. */
  kubectl(): Promise<string>;
}

/** What `openCluster` is told. */
export interface ClusterOptions {
  /** `--kubeconfig`. */
  readonly kubeconfig: string | undefined;
  readonly env: Env;
  /** State of a local control plane. */
  readonly dir: string;
  readonly progress: (line: string) => void;
  /** Whether somebody will want kubectl for the local control plane; it is built last. */
  readonly wantKubectl: boolean;
}

/**
 * The cluster of a kubeconfig, or else a local control plane: built where that is needed (minutes, once a machine), then
 * started (seconds). `signal` ends the building too.
 */
export async function openCluster(options: ClusterOptions, signal: AbortSignal): Promise<Cluster> {
  const { kubeconfig, env, dir, progress, wantKubectl } = options;
  if (kubeconfig !== undefined || env.KUBECONFIG) {
    return {
      agentEnv: kubeconfig === undefined ? {} : { BROKKR__AGENT__KUBECONFIG_PATH: kubeconfig },
      kubectl: () => Promise.resolve(kubeconfig === undefined ? 'kubectl' : `kubectl --kubeconfig ${kubeconfig}`),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
  const told = (line: string) => {
    if (!signal.aborted) progress(line); // at Ctrl-C the programs end with us: not worth a word
  };
  const want = [
    'etcd',
    'kube-apiserver',
    'kube-controller-manager',
    'kwok',
    ...(wantKubectl ? (['kubectl'] as const) : []),
  ] as const;
  const binaries = buildControlPlane({ env, progress: told, want }, signal);
  const controlPlane = await startControlPlane({ binaries, dir, progress: told, audit: 'off' }, signal);
  let kubectl = 'kubectl'; // until ours is built
  binaries.path('kubectl').then(
    (path) => {
      kubectl = path;
    },
    () => undefined, // not wanted, or its build failed and was told
  );
  return {
    agentEnv: { BROKKR__AGENT__KUBECONFIG_PATH: controlPlane.kubeconfigPath },
    kubectl: async () => {
      await Promise.resolve(); // a path that is known by now is taken over first
      return `${kubectl} --kubeconfig ${controlPlane.kubeconfigPath}`;
    },
    [Symbol.asyncDispose]: () => controlPlane[Symbol.asyncDispose](),
  };
}
