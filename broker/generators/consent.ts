import { BrokkrError } from '#lib/errors.ts';
import { assertAgent } from '../agents/store.ts';
import type { Command, Query } from '../api/command.ts';
import type { Principal } from '../api/principal.ts';
import { deleteRegistration, insertRegistrations, listRegistrations, type RegistrationRow } from './registrations.ts';
import { deleteTargetsOf, getGenerator } from './store.ts';

/** Registers an agent with a generator. An agent registers itself only; an admin names the agent. */
export async function registerAgent(
  command: Command,
  { id: generatorId, agentId: named }: { readonly id: string; readonly agentId?: string | undefined },
): Promise<RegistrationRow> {
  const agentId = agentOf(command.principal, named);
  await getGenerator(command.tx, generatorId);
  await assertAgent(command.tx, agentId);
  const [row] = await insertRegistrations(command.tx, agentId, [generatorId]);
  if (!row) throw new BrokkrError('already_registered', `agent ${agentId} is registered with generator ${generatorId} already`);
  command.audit('agent.registered', 'agent', agentId, { generator_id: generatorId });
  command.change({ kind: 'agent', agentId });
  return row;
}

/** Takes a registration back, and the direct assignments of that generator's stacks with it. */
export async function deregisterAgent(
  command: Command,
  { id: generatorId, agentId: named }: { readonly id: string; readonly agentId?: string | undefined },
): Promise<void> {
  const agentId = agentOf(command.principal, named);
  if (!(await deleteRegistration(command.tx, agentId, generatorId))) {
    throw new BrokkrError('registration_not_found', `agent ${agentId} is not registered with generator ${generatorId}`);
  }
  const stackIds = await deleteTargetsOf(command.tx, agentId, generatorId);
  command.audit('agent.deregistered', 'agent', agentId, { generator_id: generatorId, stack_ids: stackIds });
  command.change({ kind: 'agent', agentId });
}

/** Agents registered with a generator, for an admin or the generator itself. */
export async function registeredAgents({ db, principal }: Query, id: string): Promise<RegistrationRow[]> {
  if (principal.kind === 'generator' && principal.generatorId !== id.toLowerCase()) {
    throw new BrokkrError('not_authorized', `generator ${id} is another one than the caller`);
  }
  const generator = await getGenerator(db, id);
  if (generator.is_system) {
    throw new BrokkrError(
      'system_generator_not_a_tenant',
      'every agent is registered with the system generator, which is no tenant',
    );
  }
  return await listRegistrations(db, { generatorId: id });
}

function agentOf(principal: Principal, named: string | undefined): string {
  switch (principal.kind) {
    case 'admin':
      if (named === undefined)
        throw new BrokkrError('missing_agent_id', 'agent_id says which agent; only agents may leave it out');
      return named;
    case 'agent':
      if (named !== undefined && named.toLowerCase() !== principal.agentId)
        throw new BrokkrError('forbidden', 'an agent registers only itself');
      return principal.agentId;
    case 'generator':
      throw new BrokkrError('forbidden', 'generators do not register agents');
  }
}
