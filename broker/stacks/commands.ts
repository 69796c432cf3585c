import { BrokkrError } from '#lib/errors.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { RollbackStackRequest } from '#proto/brokkr/v1/stacks_pb.js';
import type { Command } from '../api/command.ts';
import { type Acceptance, listAssigned } from '../targeting/store.ts';
import {
  agentExists,
  deletePause,
  type FormerHead,
  findGeneration,
  findGoodEverywhere,
  findRevision,
  insertPause,
} from './commands-store.ts';
import { decodeOptions, encodeOptions } from './options.ts';
import { assertVersion, lockOwned } from './stacks.ts';
import { type Head, moveHead, type StackRow } from './store.ts';

/** A stack and what is to happen on it, on one agent when that is named (its id; empty: everywhere). */
interface PauseRequest {
  readonly id: string;
  readonly agentId: string;
}

/** Makes an earlier head the head again. Throws `generation_not_found`, `no_good_generation` and `precondition_failed`. */
export async function rollbackStack(
  request: RollbackStackRequest,
  command: Command,
  acceptance: Acceptance,
): Promise<{ readonly stack: StackRow; readonly from: FormerHead }> {
  const stack = await lockForCommand(command, request.id);
  const from = await findFormer(request, command, stack, acceptance);
  const options = decodeOptions(from.options);
  options.approveDeletes = 0; // was for the head it came with
  options.paused = decodeOptions(stack.options).paused;
  const head = { deploymentObjectId: from.deployment_object_id, manifestDigest: from.manifest_digest };
  const moved = await move(command, stack, { ...head, cause: 'rollback' }, options);
  command.audit('stack.rolled_back', 'stack', stack.id, {
    generation: Number(moved.generation),
    from_generation: Number(from.generation),
    deployment_object_id: from.deployment_object_id,
  });
  return { stack: moved, from };
}

async function findFormer(
  { to }: RollbackStackRequest,
  { tx }: Command,
  stack: StackRow,
  acceptance: Acceptance,
): Promise<FormerHead> {
  if (to.case === undefined) {
    const agentIds = (await listAssigned(tx, { stackIds: [stack.id], acceptance })).map(({ agent_id }) => agent_id);
    const good = await findGoodEverywhere(tx, stack, agentIds);
    if (good) return good;
    throw new BrokkrError(
      'no_good_generation',
      `no generation before ${stack.generation} was good on every agent of stack ${stack.name}: name the generation or the revision`,
    );
  }
  const former =
    to.case === 'generation' ? await findGeneration(tx, stack.id, to.value) : await findRevision(tx, stack.id, to.value);
  if (former) return former;
  throw new BrokkrError('generation_not_found', `stack ${stack.name} has no ${to.case} ${to.value} with content`);
}

/** The same head under a new generation. Throws `generation_not_found` while there is no content. */
export async function retryStack(id: string, command: Command): Promise<StackRow> {
  const stack = await lockForCommand(command, id);
  if (stack.deployment_object_id === null) {
    throw new BrokkrError('generation_not_found', `stack ${stack.name} has no content to try again`);
  }
  const moved = await move(command, stack, { ...present(stack), cause: 'retry' }, decodeOptions(stack.options));
  command.audit('stack.retried', 'stack', stack.id, { generation: Number(moved.generation) });
  return moved;
}

/** Pauses a stack, or ends its pause; changes nothing when it is so already. Throws `agent_not_found`. */
export async function setPaused({ id, agentId }: PauseRequest, paused: boolean, command: Command): Promise<StackRow> {
  const stack = await lockForCommand(command, id);
  const action = paused ? 'stack.paused' : 'stack.resumed';
  if (agentId !== '') {
    const { tx } = command;
    if (!(await agentExists(tx, agentId))) throw new BrokkrError('agent_not_found', `no agent ${agentId}`);
    if (!(await (paused ? insertPause : deletePause)(tx, agentId, stack.id))) return stack;
    command.audit(action, 'stack', stack.id, { agent_id: agentId });
    command.change({ kind: 'stack', stackId: stack.id });
    return stack;
  }
  const options = decodeOptions(stack.options);
  if (options.paused === paused) return stack;
  options.paused = paused;
  const moved = await move(command, stack, { ...present(stack), cause: paused ? 'pause' : 'resume' }, options);
  command.audit(action, 'stack', stack.id, { generation: Number(moved.generation) });
  return moved;
}

async function lockForCommand(command: Command, id: string): Promise<StackRow> {
  const stack = await lockOwned(command, id);
  assertVersion(command, stack);
  return stack;
}

function present(stack: StackRow): Pick<Head, 'deploymentObjectId' | 'manifestDigest'> {
  return { deploymentObjectId: stack.deployment_object_id, manifestDigest: stack.manifest_digest };
}

async function move(
  command: Command,
  stack: StackRow,
  head: Pick<Head, 'deploymentObjectId' | 'manifestDigest' | 'cause'>,
  options: ApplyOptions,
): Promise<StackRow> {
  command.change({ kind: 'stack', stackId: stack.id });
  const { principal, tx } = command;
  const encoded = encodeOptions(options);
  return await moveHead(tx, { ...head, stackId: stack.id, options: encoded, principal, traceparent: command.traceparent });
}
