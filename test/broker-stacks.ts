import { type Client, ConnectError, createClient, createRouterTransport, type Interceptor } from '@connectrpc/connect';
import { createValidateInterceptor } from '@connectrpc/validate';
import { type Clock, systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { DEFAULT_LIMITS } from '#lib/yaml.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import { type Error as ErrorDetail, ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { assertAccess } from '../broker/api/access.ts';
import { createPipeline } from '../broker/api/command.ts';
import type { Principal } from '../broker/api/principal.ts';
import type { Database } from '../broker/database.ts';
import { principalKey } from '../broker/http/context.ts';
import { createErrorsInterceptor } from '../broker/http/rpc-errors.ts';
import type { SealingKey } from '../broker/sealing.ts';
import { createBlobStore } from '../broker/stacks/blobs.ts';
import { type StackServiceOptions, stackService } from '../broker/stacks/rpc.ts';
import type { StatusChanges } from '../broker/stacks/status.ts';

/** Support for the tests of this folder: the service over Connect's in-process transport, everything else real. */
export interface TestService {
  /** A client with the key of `principal`. */
  as(principal: Principal): Client<typeof StackService>;
}

/** The key of an administrator. */
export const ADMIN: Principal = { kind: 'admin', keyId: '00000000-0000-4000-8000-000000000001', readOnly: false };

/** The key of a generator. */
export function generatorKey(generatorId: string): Principal {
  return { kind: 'generator', keyId: '00000000-0000-4000-8000-000000000002', readOnly: false, generatorId };
}

/** The key of an agent. */
export function agentKey(agentId: string): Principal {
  return { kind: 'agent', keyId: '00000000-0000-4000-8000-000000000003', readOnly: false, agentId };
}

/** Builds the service on an open database. */
export function testService(
  deps: {
    readonly db: Database;
    readonly yaml: YamlPool;
    readonly statusChanges?: StatusChanges;
    readonly clock?: Clock;
    readonly keys?: readonly SealingKey[];
  },
  options: Partial<StackServiceOptions> = {},
): TestService {
  const implementation = stackService(
    {
      db: deps.db,
      yaml: deps.yaml,
      clock: deps.clock ?? systemClock,
      pipeline: createPipeline({ db: deps.db, committed: () => undefined }),
      blobs: createBlobStore(deps.keys),
      statusChanges: deps.statusChanges ?? {
        wait: (_stackId, signal) =>
          new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      },
      questions: { ask: async () => ({ kind: 'offline', lastSeenAt: undefined }) },
    },
    { acceptance: 'all', limits: DEFAULT_LIMITS, ...options },
  );
  const log = createLog('test', { level: 'fatal' });
  const validate = createValidateInterceptor(); // once: it compiles the rules of a message when it first sees one
  return {
    as(principal) {
      const authenticate: Interceptor = (next) => (request) => {
        request.contextValues.set(principalKey, principal);
        assertAccess(request.method, principal, request.stream ? undefined : request.message);
        return next(request);
      };
      const interceptors = [createErrorsInterceptor(log), authenticate, validate];
      const transport = createRouterTransport((router) => router.service(StackService, implementation), {
        router: { interceptors },
      });
      return createClient(StackService, transport);
    },
  };
}

/** What a call fails with: our error detail. Throws when it does not fail, or fails otherwise. */
export async function failure(call: Promise<unknown>): Promise<ErrorDetail> {
  const error: unknown = await call.then(
    () => new Error('the call did not fail'),
    (thrown: unknown) => thrown,
  );
  const detail = error instanceof ConnectError ? error.findDetails(ErrorSchema)[0] : undefined;
  if (!detail) throw error;
  return detail;
}

/** A ConfigMap document. */
export function configMap(name: string, value = 'x', namespace = 'default'): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n  namespace: ${namespace}\ndata:\n  key: ${value}\n`;
}

/** Documents joined as kubectl reads them. */
export function documents(...texts: readonly string[]): string {
  return texts.join('---\n');
}
