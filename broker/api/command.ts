import { createHash } from 'node:crypto';
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import type { HandlerContext } from '@connectrpc/connect';
import { BrokkrError, type JsonValue } from '#lib/errors.ts';
import { activeTraceparent, sampledTraceparent } from '#lib/tracing.ts';
import type { Database, Transaction } from '../database.ts';
import { callKey, principalKey } from '../http/context.ts';
import type { Principal } from './principal.ts';
import {
  type AuditEntry,
  type Change,
  insertAudit,
  insertChanges,
  type RememberedAnswer,
  recallAnswer,
  rememberAnswer,
  setTraceparent,
} from './store.ts';

/** A request that changes something, inside its transaction. */
export interface Command {
  readonly tx: Transaction;
  readonly principal: Principal;
  readonly ctx: HandlerContext;
  readonly dryRun: boolean;
  /** W3C trace context for what the request makes: of its own span, or the caller's while no traces are made here; undefined when not sampled. */
  readonly traceparent: string | undefined;
  /** Adds an audit row with the true actor, written in the same transaction. Never put a secret into `details`. */
  audit(
    action: string,
    resourceType: string,
    resourceId: string | undefined,
    details?: Readonly<Record<string, JsonValue>>,
  ): void;
  /** Adds a row to the change log, written last in the same transaction; sessions hear of it after the commit. */
  change(change: Change): void;
  /** The version that `If-Match` asks for; undefined when the header is absent. Throws `precondition_failed` when malformed. */
  ifMatch(): number | undefined;
  /** Sets the `ETag` of the answer. */
  etag(version: number): void;
}

/** A request that reads. */
export interface Query {
  readonly db: Database;
  readonly principal: Principal;
  readonly ctx: HandlerContext;
  /** Sets the `ETag` of the answer. */
  etag(version: number): void;
}

/** Wraps the operations of a service into handlers. */
export interface Pipeline {
  /** A handler that only reads. */
  query<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    operation: (request: MessageShape<I>, query: Query) => Promise<MessageInitShape<O>>,
  ): (request: MessageShape<I>, ctx: HandlerContext) => Promise<MessageInitShape<O>>;
  /**
   * A handler that changes something: one transaction with its audit rows and change-log rows; `Idempotency-Key` makes
   * a repetition answer what the first call answered (keys shown once stay out of it); `dry_run` rolls everything back.
   */
  command<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    operation: (request: MessageShape<I>, command: Command) => Promise<MessageInitShape<O>>,
  ): (request: MessageShape<I>, ctx: HandlerContext) => Promise<MessageInitShape<O>>;
}

/** What the pipeline needs. `committed` is called after a commit that wrote change-log rows. */
export interface PipelineDeps {
  readonly db: Database;
  readonly committed: (changes: readonly Change[]) => void;
}

/** Longest `Idempotency-Key`. */
const MAX_IDEMPOTENCY_KEY = 255;
/** Fields that are shown once and never stored. */
const SECRET_FIELDS: readonly string[] = ['pak', 'initialPak', 'secret'];

/** Builds the pipeline of a broker. */
export function createPipeline(deps: PipelineDeps): Pipeline {
  return {
    query: (_method, operation) => (request, ctx) =>
      operation(request, { db: deps.db, principal: principalOf(ctx), ctx, etag: (version) => setEtag(ctx, version) }),
    command: (method, operation) => (request, ctx) => runCommand(deps, method, operation, request, ctx),
  };
}

/** The caller; every method but public ones has one. */
export function principalOf(ctx: HandlerContext): Principal {
  const principal = ctx.values.get(principalKey) as Principal | undefined;
  if (!principal) throw new BrokkrError('unauthorized', 'this method needs a key');
  return principal;
}

async function runCommand<I extends DescMessage, O extends DescMessage>(
  { db, committed }: PipelineDeps,
  method: DescMethodUnary<I, O>,
  operation: (request: MessageShape<I>, command: Command) => Promise<MessageInitShape<O>>,
  request: MessageShape<I>,
  ctx: HandlerContext,
): Promise<MessageShape<O>> {
  const principal = principalOf(ctx);
  const dryRun = (request as { dryRun?: boolean }).dryRun === true;
  const idempotency = dryRun ? undefined : idempotencyOf(ctx, principal, method, request);
  const traceparent = activeTraceparent() ?? sampledTraceparent(ctx.requestHeader.get('traceparent') ?? undefined);
  let committedChanges: readonly Change[] = [];
  try {
    const answer = await db.transaction(async (tx) => {
      committedChanges = [];
      if (traceparent !== undefined) await setTraceparent(tx, traceparent);
      if (idempotency) {
        const known = await recallAnswer(tx, idempotency);
        if (known) return replay(method, known, ctx);
      }
      const audits: AuditEntry[] = [];
      const changes: Change[] = [];
      const message = create(
        method.output,
        await operation(request, commandOf({ tx, principal, ctx, dryRun, traceparent }, audits, changes)),
      );
      await tx.em.flush();
      await insertAudit(tx, audits);
      if (idempotency) {
        const response = toBinary(method.output, withoutSecrets(method.output, message));
        await rememberAnswer(tx, idempotency, { response, etag: ctx.responseHeader.get('etag') ?? undefined });
      }
      if (dryRun) throw new DryRun(message);
      await insertChanges(tx, changes);
      committedChanges = changes;
      return message;
    });
    if (committedChanges.length > 0) committed(committedChanges);
    return answer;
  } catch (error) {
    if (error instanceof DryRun) return error.answer as MessageShape<O>;
    throw error;
  }
}

/** Carries the answer of a dry run out of the transaction that it rolls back. */
class DryRun extends Error {
  readonly answer: unknown;
  constructor(answer: unknown) {
    super('dry run');
    this.answer = answer;
  }
}

function commandOf(
  given: Pick<Command, 'tx' | 'principal' | 'ctx' | 'dryRun' | 'traceparent'>,
  audits: AuditEntry[],
  changes: Change[],
): Command {
  const { principal, ctx } = given;
  const call = ctx.values.get(callKey);
  return {
    ...given,
    audit: (action, resourceType, resourceId, details) =>
      void audits.push({
        principal,
        action,
        resourceType,
        resourceId,
        details,
        ipAddress: call?.ipAddress,
        userAgent: call?.userAgent,
      }),
    change: (change) => void changes.push(change),
    ifMatch: () => ifMatch(ctx),
    etag: (version) => setEtag(ctx, version),
  };
}

function setEtag(ctx: HandlerContext, version: number): void {
  ctx.responseHeader.set('etag', `"${version}"`);
}

function ifMatch(ctx: HandlerContext): number | undefined {
  const header = ctx.requestHeader.get('if-match');
  if (header === null || header === '*') return undefined;
  const version = /^(?:W\/)?"(\d+)"$/.exec(header)?.[1];
  if (version === undefined) throw new BrokkrError('precondition_failed', `if-match is ${header}, expected an etag such as "3"`);
  return Number(version);
}

function idempotencyOf<I extends DescMessage>(
  ctx: HandlerContext,
  principal: Principal,
  method: DescMethodUnary<I>,
  request: MessageShape<I>,
) {
  const key = ctx.requestHeader.get('idempotency-key');
  if (key === null) return undefined;
  if (key.length === 0 || key.length > MAX_IDEMPOTENCY_KEY) {
    throw new BrokkrError(
      'invalid_request',
      `idempotency-key has ${key.length} characters, allowed are 1 to ${MAX_IDEMPOTENCY_KEY}`,
    );
  }
  return {
    actor:
      principal.kind === 'admin'
        ? 'admin'
        : `${principal.kind}/${principal.kind === 'agent' ? principal.agentId : principal.generatorId}`,
    key,
    method: `${method.parent.typeName}/${method.name}`,
    requestHash: createHash('sha256').update(toBinary(method.input, request)).digest(),
  };
}

function replay<O extends DescMessage>(
  method: DescMethodUnary<DescMessage, O>,
  { response, etag }: RememberedAnswer,
  ctx: HandlerContext,
): MessageShape<O> {
  ctx.responseHeader.set('idempotency-replayed', 'true');
  if (etag !== undefined) ctx.responseHeader.set('etag', etag);
  return fromBinary(method.output, response);
}

function withoutSecrets<O extends DescMessage>(desc: O, message: MessageShape<O>): MessageShape<O> {
  const copy = fromBinary(desc, toBinary(desc, message));
  clearSecrets(reflect(desc, copy));
  return copy;
}

function clearSecrets(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (SECRET_FIELDS.includes(field.localName)) message.clear(field);
    else if (field.fieldKind === 'message' && message.isSet(field)) clearSecrets(message.get(field));
  }
}
