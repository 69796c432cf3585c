import { BrokkrError, type JsonValue } from '#lib/errors.ts';
import { mintKey } from '#lib/pak.ts';
import { AgentStatus, type CreateAgentRequest, type UpdateAgentRequest } from '#proto/brokkr/v1/agents_pb.js';
import type { Command, Query } from '../api/command.ts';
import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';
import { insertRegistrations } from '../generators/registrations.ts';
import { isSystemGenerator, selectRegistrable } from '../generators/store.ts';
import { insertKey, revokeKeys } from '../keys/store.ts';
import type { Acceptance } from '../targeting/store.ts';
import { AgentEntity } from './entities.ts';
import { assertAnnotation, assertLabel } from './labels.ts';
import { ACCEPTANCE_TEXT, STATUS_TEXT } from './messages.ts';
import {
  type AgentRow,
  assertAgent,
  editAgent,
  findAgentByName,
  getAgent,
  insertAnnotations,
  insertLabels,
  listAgents as listAgentRows,
  softDeleteAgent,
} from './store.ts';

/** An agent with a key, which is shown only in this answer; empty after a dry run, where it would not work. */
export interface AgentWithKey {
  readonly row: AgentRow;
  readonly pak: string;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Agents the caller may see: all for an admin, those its stacks can reach for a generator. */
export async function listAgents(
  { db, principal }: Query,
  { label, page, acceptance }: { readonly label: string; readonly page: Page; readonly acceptance: Acceptance },
): Promise<AgentRow[]> {
  const generatorId = principal.kind === 'generator' ? principal.generatorId : undefined;
  if (generatorId !== undefined && (await isSystemGenerator(db, generatorId))) {
    throw new BrokkrError('system_generator_not_a_tenant', 'the system generator is no tenant and has no agents of its own');
  }
  return await listAgentRows(db, { label: label === '' ? undefined : label, generatorId, acceptance }, page);
}

/** The agent with this name in this cluster. An agent finds only itself. */
export async function findAgent(
  { db, principal }: Query,
  { name, clusterName }: { readonly name: string; readonly clusterName: string },
): Promise<AgentRow> {
  const row = await findAgentByName(db, name, clusterName);
  if (!row) throw new BrokkrError('agent_not_found', `no agent ${name} in cluster ${clusterName}`);
  if (principal.kind === 'agent' && principal.agentId !== row.id) {
    throw new BrokkrError('agent_pak_mismatch', `the key belongs to another agent than ${name} in cluster ${clusterName}`);
  }
  return row;
}

/** Creates an agent with its labels, annotations, registrations and first key. */
export async function createAgent(command: Command, request: CreateAgentRequest): Promise<AgentWithKey> {
  const labels = [...new Set(request.labels)];
  for (const label of labels) assertLabel(label);
  const annotations = Object.entries(request.annotations);
  for (const [key, value] of annotations) assertAnnotation(key, value);
  const generatorIds = await registrable(command.tx, request.generatorIds);

  const { tx } = command;
  const agent = tx.em.create(AgentEntity, {
    name: request.name,
    clusterName: request.clusterName,
    status: STATUS_TEXT[request.status ?? AgentStatus.ACTIVE] ?? 'ACTIVE',
    acceptance: request.acceptance === undefined ? null : ACCEPTANCE_TEXT[request.acceptance],
  });
  await tx.em.flush();
  if (labels.length > 0) await insertLabels(tx, agent.id, labels);
  if (annotations.length > 0) await insertAnnotations(tx, agent.id, annotations);
  await insertRegistrations(tx, agent.id, generatorIds);
  command.audit('agent.created', 'agent', agent.id, {
    name: agent.name,
    cluster_name: agent.clusterName,
    status: agent.status,
    acceptance: agent.acceptance ?? null,
    labels,
    annotations: request.annotations,
    generator_ids: generatorIds,
  });
  const pak = await newKey(command, agent.id, 'pak.created');
  command.change({ kind: 'agent', agentId: agent.id });
  return { row: await getAgent(tx, agent.id), pak };
}

/** Changes what the request sets; nothing is written when that is nothing new. */
export async function updateAgent(command: Command, request: UpdateAgentRequest): Promise<AgentRow> {
  const { tx, principal } = command;
  const agent = await editAgent(tx.em, request.id);
  if (!agent) throw notFound(request.id);
  assertVersion(command, agent.version);
  const status = request.status === undefined ? undefined : STATUS_TEXT[request.status];
  if (principal.kind === 'agent' && status === 'ACTIVE' && agent.status === 'INACTIVE') {
    throw new BrokkrError('forbidden', 'an agent that is INACTIVE is set ACTIVE by an admin only');
  }
  const wanted = {
    ...(request.name !== undefined && { name: request.name }),
    ...(request.clusterName !== undefined && { clusterName: request.clusterName }),
    ...(status !== undefined && { status }),
    ...(request.acceptance !== undefined && { acceptance: ACCEPTANCE_TEXT[request.acceptance] }),
  };
  const changes: Record<string, JsonValue> = {};
  for (const key of Object.keys(wanted) as (keyof typeof wanted)[]) {
    if (wanted[key] === undefined || agent[key] === wanted[key]) continue;
    changes[key === 'clusterName' ? 'cluster_name' : key] = { from: agent[key] ?? null, to: wanted[key] };
  }
  if (Object.keys(changes).length > 0) {
    tx.em.assign(agent, wanted);
    await tx.em.flush();
    command.audit('agent.updated', 'agent', agent.id, changes);
    command.change({ kind: 'agent', agentId: agent.id });
  }
  return await getAgent(tx, agent.id);
}

/** Deletes the agent and revokes its keys; its session ends when the change is read. What it applied stays. */
export async function deleteAgent(command: Command, id: string): Promise<void> {
  const agent = await editAgent(command.tx.em, id);
  if (!agent) throw notFound(id);
  assertVersion(command, agent.version);
  await softDeleteAgent(command.tx, id);
  const keys = await revokeKeys(command.tx, { agentId: id });
  command.audit('agent.deleted', 'agent', id, { name: agent.name, cluster_name: agent.clusterName, keys_revoked: keys });
  command.change({ kind: 'agent', agentId: id });
  command.change({ kind: 'key', agentId: id });
}

/** Replaces all keys of the agent by a new one; old ones go on working for the grace. */
export async function rotateAgentPak(
  command: Command,
  { id, graceSeconds }: { readonly id: string; readonly graceSeconds: number },
): Promise<AgentWithKey> {
  await assertAgent(command.tx, id);
  await revokeKeys(command.tx, { agentId: id }, { graceSeconds });
  const pak = await newKey(command, id, 'pak.rotated');
  return { row: await getAgent(command.tx, id), pak };
}

/** Throws `precondition_failed` when `If-Match` asks for another version than this one. */
export function assertVersion(command: Command, version: number): void {
  const wanted = command.ifMatch();
  if (wanted !== undefined && wanted !== version) {
    throw new BrokkrError('precondition_failed', `the present etag is "${version}", if-match asks for "${wanted}"`);
  }
}

async function newKey(command: Command, agentId: string, action: 'pak.created' | 'pak.rotated'): Promise<string> {
  const { pak, hash, shortToken } = mintKey();
  const name = action === 'pak.created' ? 'initial' : 'rotated';
  const key = await insertKey(command.tx, { role: 'agent', agentId, name, hash, shortToken });
  command.audit(action, 'pak', key.id, { role: 'agent', agent_id: agentId, name });
  command.change({ kind: 'key', agentId });
  return command.dryRun ? '' : pak;
}

/** The generators to register a new agent with: those named, and the system one. Throws `invalid_generator_id`. */
async function registrable(tx: Queryable, named: readonly string[]): Promise<string[]> {
  const malformed = named.find((id) => !UUID.test(id));
  if (malformed !== undefined) throw unknownGenerator(malformed);
  const found = await selectRegistrable(tx, named);
  const missing = named.find((id) => !found.includes(id.toLowerCase()));
  if (missing !== undefined) throw unknownGenerator(missing);
  return found;
}

function unknownGenerator(id: string): BrokkrError {
  return new BrokkrError('invalid_generator_id', `no generator ${id}`, { details: { generator_id: id } });
}

function notFound(id: string): BrokkrError {
  return new BrokkrError('agent_not_found', `no agent ${id}`, { details: { agent_id: id } });
}
