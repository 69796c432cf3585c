import { randomBytes, randomUUID } from 'node:crypto';
import type { DescService } from '@bufbuild/protobuf';
import { type Client, type ConnectRouter, createClient, createRouterTransport, type Interceptor } from '@connectrpc/connect';
import { createValidateInterceptor } from '@connectrpc/validate';
import { createLog } from '#lib/log.ts';
import { assertAccess } from '../../api/access.ts';
import { createPipeline, type Pipeline } from '../../api/command.ts';
import type { Principal } from '../../api/principal.ts';
import type { Database } from '../../database.ts';
import { callKey, principalKey } from '../../http/context.ts';
import { createErrorsInterceptor, errorBodyOf } from '../../http/rpc-errors.ts';

/** Services on a real database, reached through Connect's router in this process. */
export interface Rig {
  readonly db: Database;
  /** How often the pipeline committed something that the change feed tells of. */
  commits(): number;
  /** A client whose requests carry this principal; role, validation and errors work as on the port. */
  as<S extends DescService>(service: S, principal: Principal): Client<S>;
}

/** Opens a rig on a database whose entities are those of the services. */
export function openRig(db: Database, routes: (router: ConnectRouter, pipeline: Pipeline) => void): Rig {
  let commits = 0;
  const validate = createValidateInterceptor(); // once: it compiles the rules of a message when it first sees one
  const pipeline = createPipeline({
    db,
    committed: () => {
      commits++;
    },
  });
  return {
    db,
    commits: () => commits,
    as(service, principal) {
      const interceptors = [createErrorsInterceptor(createLog('test', { level: 'fatal' })), admit(principal), validate];
      return createClient(
        service,
        createRouterTransport((router) => routes(router, pipeline), { router: { interceptors } }),
      );
    },
  };
}

/** An admin, an agent or a generator with a key of its own. */
export const admin: Principal = { kind: 'admin', keyId: randomUUID(), readOnly: false };

/** The principal of an agent. */
export function agentPrincipal(agentId: string): Principal {
  return { kind: 'agent', keyId: randomUUID(), readOnly: false, agentId };
}

/** The principal of a generator. */
export function generatorPrincipal(generatorId: string): Principal {
  return { kind: 'generator', keyId: randomUUID(), readOnly: false, generatorId };
}

/** What the port would answer: error name, message and details. */
export async function refusal(
  call: Promise<unknown>,
): Promise<{ readonly code: string; readonly message: string; readonly details?: unknown }> {
  const outcome = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (outcome === undefined) throw new Error('the call was not refused');
  return errorBodyOf(outcome);
}

/** A stack with one deployment object; `content: false` leaves it empty. */
export async function plantStack(
  db: Database,
  { generatorId, name, content = true }: { readonly generatorId: string; readonly name: string; readonly content?: boolean },
): Promise<{ readonly id: string; readonly deploymentObjectId: string }> {
  return await db.transaction(async (tx) => {
    const id = randomUUID();
    const deploymentObjectId = randomUUID();
    const digest = randomBytes(32);
    await tx.query('insert into stack (id, name, generator_id, salt, options_digest) values ($1, $2, $3, $4, $5)', [
      id,
      name,
      generatorId,
      randomBytes(16),
      digest,
    ]);
    if (!content) return { id, deploymentObjectId };
    await tx.query(
      `insert into deployment_object (id, stack_id, revision, yaml_content, yaml_checksum, manifest, manifest_digest, object_count)
       values ($1, $2, 1, $3, 'checksum', '', $4, 1)`,
      [deploymentObjectId, id, `name: ${name}`, digest],
    );
    await tx.query(
      'update stack set generation = 1, deployment_object_id = $2, manifest_digest = $3, head_at = now() where id = $1',
      [id, deploymentObjectId, digest],
    );
    await tx.query(
      `insert into stack_generation (stack_id, generation, deployment_object_id, options, options_digest, cause, actor_type)
       values ($1, 1, $2, '', $3, 'content', 'admin')`,
      [id, deploymentObjectId, digest],
    );
    return { id, deploymentObjectId };
  });
}

/** Stands where the port authenticates and checks the role. */
function admit(principal: Principal): Interceptor {
  return (next) => async (request) => {
    request.contextValues.set(principalKey, principal);
    request.contextValues.set(callKey, { requestId: 'test', ipAddress: '192.0.2.1', userAgent: 'vitest' });
    assertAccess(request.method, principal, request.stream ? undefined : request.message);
    return await next(request);
  };
}
