import { BrokkrError } from '#lib/errors.ts';
import type { Command, Query } from '../api/command.ts';
import type { Principal } from '../api/principal.ts';
import { insertRegistrations, isRegistered } from '../generators/registrations.ts';
import { notFound } from '../stacks/stacks.ts';
import { findStack, type StackRow } from '../stacks/store.ts';
import { type Acceptance, listAssigned } from '../targeting/store.ts';
import { findAgent, getAgent } from './store.ts';
import { type ContentRow, deleteTarget, insertTarget, listContent, listStacksOf, type TargetRow } from './targets-store.ts';

/** Which stack on which agent. */
export interface TargetPair {
  readonly agentId: string;
  readonly stackId: string;
}

/**
 * Assigns a stack to an agent. Where the agent accepts registered generators only, an admin's assignment registers it
 * with the stack's generator. Checks in the order the API promises: stack, owner, agent's consent, repetition.
 */
export async function addTarget(
  command: Command,
  { agentId, stackId }: TargetPair,
  defaultAcceptance: Acceptance,
): Promise<TargetRow> {
  const { tx } = command;
  const stack = await ownStack(command, stackId);
  const agent = await findAgent(tx, agentId);
  const consentNeeded = (agent?.acceptance ?? defaultAcceptance) === 'registered';
  if (
    consentNeeded &&
    command.principal.kind === 'generator' &&
    !(agent && (await isRegistered(tx, agentId, stack.generator_id)))
  ) {
    throw new BrokkrError('agent_not_registered', `agent ${agentId} is not registered with generator ${stack.generator_id}`);
  }
  await getAgent(tx, agentId);
  const row = await insertTarget(tx, agentId, stackId);
  if (consentNeeded && (await insertRegistrations(tx, agentId, [stack.generator_id])).length > 0) {
    command.audit('agent.registered', 'agent', agentId, { generator_id: stack.generator_id, implied_by: 'target' });
  }
  command.audit('agent.target_added', 'agent', agentId, { stack_id: stackId });
  command.change({ kind: 'agent', agentId });
  return row;
}

/** Takes a direct assignment back. */
export async function removeTarget(command: Command, { agentId, stackId }: TargetPair): Promise<void> {
  await ownStack(command, stackId);
  if (!(await deleteTarget(command.tx, agentId, stackId))) {
    throw new BrokkrError('agent_target_not_found', `stack ${stackId} is not assigned directly to agent ${agentId}`);
  }
  command.audit('agent.target_removed', 'agent', agentId, { stack_id: stackId });
  command.change({ kind: 'agent', agentId });
}

/**
 * The released content of every stack assigned to the agent, newest first. `unreportedOnly` leaves out what the agent has
 * sent an event about, whatever its outcome. Throws `agent_inactive`: an INACTIVE agent is handed nothing.
 */
export async function targetState(
  { db }: Query,
  {
    agentId,
    unreportedOnly,
    acceptance,
  }: { readonly agentId: string; readonly unreportedOnly: boolean; readonly acceptance: Acceptance },
): Promise<ContentRow[]> {
  const assigned = await listAssigned(db, { agentIds: [agentId], acceptance });
  if (assigned.length === 0) {
    const agent = await getAgent(db, agentId);
    if (agent.status === 'INACTIVE')
      throw new BrokkrError('agent_inactive', `agent ${agent.name} is INACTIVE and is handed nothing`);
    return [];
  }
  const ids = assigned.map((row) => row.deployment_object_id);
  return await listContent(db, ids, { unreportedBy: unreportedOnly ? agentId : undefined });
}

/** Stacks that a rule assigns to the agent. */
export async function stacksOf(
  { db }: Query,
  { agentId, acceptance }: { readonly agentId: string; readonly acceptance: Acceptance },
): Promise<StackRow[]> {
  await getAgent(db, agentId);
  return await listStacksOf(db, agentId, acceptance);
}

/** The live stack, if it is the caller's to assign. */
async function ownStack({ tx, principal }: Command, stackId: string): Promise<StackRow> {
  const stack = await findStack(tx, stackId);
  if (!stack || stack.deleted_at !== null) throw notFound(stackId);
  assertMayAssign(principal, stack);
  return stack;
}

function assertMayAssign(principal: Principal, stack: StackRow): void {
  switch (principal.kind) {
    case 'admin':
      return;
    case 'agent':
      throw new BrokkrError('target_create_denied', 'agents do not assign stacks');
    case 'generator':
      if (principal.generatorId === stack.generator_id) return;
      throw new BrokkrError('target_generator_mismatch', `stack ${stack.name} belongs to another generator`);
  }
}
