import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { type Kube, type KubeDeps, openKube } from '../agent/kube/kube.ts';
import type { KubeCredentials } from '../agent/kube/kubeconfig.ts';
import type { Resource } from '../agent/kube/resource.ts';

/** For tests: a client of the API server at `url` with its own OpenAPI directory and no log. */
export function openTestKube(
  endpoint: { readonly url: string; readonly caData?: string; readonly token?: string; readonly rest?: Partial<KubeCredentials> },
  observe: NonNullable<KubeDeps['observe']> = {},
  clock: Clock = systemClock,
): Kube {
  const deps = { clock, log: createLog('test', { level: 'fatal' }), random: () => 0.5, env: {}, observe };
  const credentials = {
    server: endpoint.url,
    namespace: 'default',
    ca: endpoint.caData === undefined ? undefined : { data: endpoint.caData },
    certificate: undefined,
    key: undefined,
    tlsServerName: undefined,
    insecureSkipTlsVerify: false,
    proxyUrl: undefined,
    auth: endpoint.token === undefined ? { kind: 'none' as const } : { kind: 'token' as const, token: endpoint.token },
    ...endpoint.rest,
  };
  return openKube(deps, { credentials, openapiDir: join(tmpdir(), `brokkr-openapi-${randomUUID()}`) });
}

/** For tests: the ConfigMap resource. */
export const CONFIG_MAPS: Resource = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  namespaced: true,
  verbs: ['get', 'list', 'watch', 'patch', 'delete'],
};
