import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Env, KubeCredentials } from './kubeconfig.ts';

/** Where Kubernetes mounts the service account of a pod. */
const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Whether the environment is that of a pod (the two variables every container gets). */
export function inCluster(env: Env): boolean {
  return Boolean(env.KUBERNETES_SERVICE_HOST && env.KUBERNETES_SERVICE_PORT);
}

/** The credentials of the pod's own service account; token and CA are read again as they rotate. Rejects when a file is missing. */
export async function readInCluster(env: Env, directory: string | undefined, signal: AbortSignal): Promise<KubeCredentials> {
  const from = directory ?? SERVICE_ACCOUNT_DIR;
  const host = env.KUBERNETES_SERVICE_HOST ?? '';
  const namespace = await readFile(join(from, 'namespace'), { encoding: 'utf8', signal });
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${env.KUBERNETES_SERVICE_PORT}`,
    namespace: namespace.trim(),
    ca: { file: join(from, 'ca.crt') },
    certificate: undefined,
    key: undefined,
    tlsServerName: undefined,
    insecureSkipTlsVerify: false,
    proxyUrl: undefined,
    auth: { kind: 'tokenFile', file: join(from, 'token') },
  };
}
