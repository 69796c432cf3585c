import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { errorText } from '#lib/errors.ts';
import { clusterUidOf, type Identity, type RetryDeps, saveIdentity, untilDone } from './identity.ts';
import { type Kube, openKube } from './kube/kube.ts';
import { type Env, loadCredentials } from './kube/kubeconfig.ts';
import type { AgentMetrics } from './metrics.ts';
import { kubeObserver } from './observe.ts';
import type { AgentView } from './view.ts';

/** What opening the cluster needs. */
export interface ClusterDeps extends Omit<RetryDeps, 'waiting'> {
  readonly env: Env;
  readonly dataDir: string;
  readonly view: AgentView;
  readonly metrics: AgentMetrics;
}

/** A client of the cluster, once credentials for it are found. */
export async function openCluster(path: string | undefined, deps: ClusterDeps, signal: AbortSignal): Promise<Kube> {
  const { clock, log, random, env, dataDir, view, metrics } = deps;
  const retry = { clock, log, random, waiting: (problem: string) => view.starting(problem) };
  const credentials = await untilDone('finding the cluster', () => loadCredentials({ path }, env, signal), retry, signal);
  const cluster = createHash('sha256').update(credentials.server).digest('hex').slice(0, 12);
  return openKube(
    { clock, log, random, env, observe: kubeObserver(metrics) },
    { credentials, openapiDir: join(dataDir, 'openapi', cluster) },
  );
}

/** Asks the cluster who it is; a restart while its API server is away goes on with what was true before. */
export async function identifyCluster(
  identity: Identity,
  kube: Kube,
  retry: RetryDeps,
  dataDir: string,
  signal: AbortSignal,
): Promise<Identity> {
  try {
    const clusterUid = await clusterUidOf(kube, signal);
    return clusterUid === identity.clusterUid ? identity : await saveIdentity(dataDir, { ...identity, clusterUid });
  } catch (error) {
    signal.throwIfAborted();
    if (identity.clusterUid) {
      retry.log.warn({ error: errorText(error) }, 'cluster cannot be asked who it is: taking what it said before');
      return identity;
    }
    const clusterUid = await untilDone('identifying the cluster', () => clusterUidOf(kube, signal), retry, signal);
    return saveIdentity(dataDir, { ...identity, clusterUid });
  }
}
