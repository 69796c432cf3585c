import { createHash, randomBytes } from 'node:crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import type {
  CreateStackRequest,
  FindStackRequest,
  ListStacksRequest,
  ListStacksResponseSchema,
} from '#proto/brokkr/v1/stacks_pb.js';
import type { Command, Query } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import type { Principal } from '../api/principal.ts';
import type { Queryable } from '../database.ts';
import { type Acceptance, listAssigned } from '../targeting/store.ts';
import { emptyManifest } from './content.ts';
import { StackEntity } from './entities.ts';
import { encodeOptions } from './options.ts';
import { assertOptions } from './options-check.ts';
import { stackToProto } from './rows.ts';
import { changeSelector, readSelector } from './selector.ts';
import {
  deleteStackRows,
  findAdminGenerator,
  findOwner,
  findStack,
  findStacksByName,
  listStacks as listStackRows,
  lockStack,
  type StackRow,
  stampStack,
} from './store.ts';

/** Bytes of a stack's salt. */
const SALT_BYTES = 16;
/** SHA-256 of the empty text, which deletion markers hold. */
const EMPTY_CHECKSUM = createHash('sha256').digest('hex');

/** A new salt for object digests. */
export function newSalt(): Uint8Array {
  return randomBytes(SALT_BYTES);
}

/** The stack, for callers who own it. Throws `stack_not_found` (also for deleted ones) and `stack_not_owned`. */
export async function getOwned(db: Queryable, principal: Principal, id: string): Promise<StackRow> {
  return assertOwned(principal, await findStack(db, id), id);
}

/** The same with the row locked until the transaction ends. */
export async function lockOwned({ tx, principal }: Pick<Command, 'tx' | 'principal'>, id: string): Promise<StackRow> {
  return assertOwned(principal, await lockStack(tx, id), id);
}

/** The stack, for its owner and for agents to which it is assigned. Throws `stack_not_accessible` for other agents. */
export async function getReadable(db: Queryable, principal: Principal, id: string, acceptance: Acceptance): Promise<StackRow> {
  const stack = await findStack(db, id);
  if (principal.kind !== 'agent') return assertOwned(principal, stack, id);
  if (!stack || stack.deleted_at !== null) throw notFound(id);
  if (!(await isAssigned(db, principal.agentId, id, acceptance))) {
    throw new BrokkrError('stack_not_accessible', `stack ${id} is not assigned to this agent`);
  }
  return stack;
}

/** True when the stack is part of the agent's target state. */
export async function isAssigned(db: Queryable, agentId: string, stackId: string, acceptance: Acceptance): Promise<boolean> {
  return (await listAssigned(db, { agentIds: [agentId], stackIds: [stackId], acceptance })).length > 0;
}

function assertOwned(principal: Principal, stack: StackRow | undefined, id: string): StackRow {
  if (!stack || stack.deleted_at !== null) throw notFound(id);
  assertOwner(principal, stack);
  return stack;
}

/** Throws `stack_not_owned` when the stack is another generator's. */
export function assertOwner(principal: Principal, stack: Pick<StackRow, 'id' | 'generator_id'>): void {
  if (principal.kind === 'generator' && principal.generatorId !== stack.generator_id) {
    throw new BrokkrError('stack_not_owned', `stack ${stack.id} belongs to another generator`);
  }
}

/** The error for a stack that is not there. */
export function notFound(id: string): BrokkrError {
  return new BrokkrError('stack_not_found', `no stack ${id}`, { details: { stack_id: id } });
}

/** Throws `precondition_failed` when `If-Match` asks for another version. */
export function assertVersion(command: Command, stack: StackRow): void {
  const expected = command.ifMatch();
  if (expected !== undefined && expected !== stack.version) {
    throw new BrokkrError('precondition_failed', `the stack is at version ${stack.version}, if-match asks for ${expected}`);
  }
}

/**
 * The generator that will own what the caller creates. Throws `stack_generator_mismatch`, `system_generator_not_a_tenant`
 * and `foreign_key_violation`.
 */
export async function ownerOf(db: Queryable, principal: Principal, named: string | undefined): Promise<string> {
  if (principal.kind === 'generator') {
    if (named !== undefined && named !== principal.generatorId) {
      throw new BrokkrError('stack_generator_mismatch', 'a generator creates stacks for itself only');
    }
    return principal.generatorId;
  }
  const id = named ?? (await findAdminGenerator(db));
  const owner = id === undefined ? undefined : await findOwner(db, id);
  if (id === undefined || !owner) {
    throw new BrokkrError('foreign_key_violation', `no generator ${id ?? 'admin-generator'}`, {
      details: { constraint: 'stack_generator_id_fkey' },
    });
  }
  if (owner.is_system) throw new BrokkrError('system_generator_not_a_tenant', 'the system generator owns no stacks');
  return id;
}

/** A page of the stacks that the caller may see. */
export async function listStacks(
  request: ListStacksRequest,
  { db, principal }: Query,
): Promise<MessageInitShape<typeof ListStacksResponseSchema>> {
  const named = request.generatorId === '' ? undefined : request.generatorId;
  const own = principal.kind === 'generator' ? principal.generatorId : undefined;
  if (own !== undefined && named !== undefined && named !== own) {
    throw new BrokkrError('stacks_list_denied', 'a generator lists its own stacks only');
  }
  const page = readPage(request);
  const rows = await listStackRows(db, { generatorId: own ?? named, label: request.label }, page);
  const { rows: kept, nextPageToken } = page.cut(rows);
  return { stacks: kept.map(stackToProto), nextPageToken };
}

/** Adds a stack without content. Throws `unique_violation` when the owner has one of this name. */
export async function createStack(request: CreateStackRequest, command: Command): Promise<StackRow> {
  const { tx } = command;
  assertOptions(request.options);
  const generatorId = await ownerOf(tx, command.principal, request.generatorId);
  const { bytes, digest, deletionPolicy } = encodeOptions(request.options);
  const selector = request.selector && readSelector(request.selector);
  const stack = tx.em.create(StackEntity, {
    name: request.name,
    description: request.description ?? null,
    generatorId,
    salt: newSalt(),
    options: bytes,
    optionsDigest: digest,
    deletionPolicy,
  });
  await tx.em.flush();
  if (selector) await changeSelector(command, { id: stack.id, selector: null }, selector);
  command.audit('stack.created', 'stack', stack.id, { name: request.name, generator_id: generatorId });
  return await stampStack(tx, stack.id);
}

/** The stack with a name. Throws `stack_not_found`, and `invalid_request` when an admin has to say whose. */
export async function findNamedStack(request: FindStackRequest, { db, principal }: Query): Promise<StackRow> {
  const named = request.generatorId === '' ? undefined : request.generatorId;
  const generatorId = principal.kind === 'generator' ? principal.generatorId : named;
  const [stack, second] = await findStacksByName(db, request.name, generatorId);
  if (!stack) throw new BrokkrError('stack_not_found', `no stack named ${request.name}`);
  if (second)
    throw new BrokkrError('invalid_request', `several generators have a stack named ${request.name}: pass generator_id`);
  return stack;
}

/** Deletes one stack of the caller. */
export async function deleteStack(id: string, command: Command): Promise<void> {
  assertVersion(command, await lockOwned(command, id));
  await deleteStacks(command, [id]);
}

/**
 * Deletes stacks for good: a deletion marker becomes their last head, every agent is told, the name is free again. Access
 * is the caller's business; ids that are not there or deleted already are passed over.
 */
export async function deleteStacks(command: Command, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  for (const { id, name } of await deleteStackRows(command.tx, ids, command, {
    ...emptyManifest(),
    checksum: EMPTY_CHECKSUM,
  })) {
    command.audit('stack.deleted', 'stack', id, { name });
    command.change({ kind: 'stack', stackId: id });
  }
}
