import { BrokkrError } from '#lib/errors.ts';
import type { Command } from '../api/command.ts';
import {
  type AgentAnnotationRow,
  type AgentLabelRow,
  assertAgent,
  deleteAnnotation,
  deleteLabel,
  insertAnnotations,
  insertLabels,
} from './store.ts';

/** Labels, annotation keys and annotation values: 1 to 64 characters without whitespace. */
const WORD = /^\S{1,64}$/u;

/** Throws `invalid_label` unless it is 1 to 64 characters without whitespace. */
export function assertLabel(label: string): void {
  if (!WORD.test(label))
    throw new BrokkrError('invalid_label', `label ${JSON.stringify(label)} is not 1 to 64 characters without whitespace`);
}

/** Throws `invalid_annotation` unless key and value are 1 to 64 characters without whitespace. */
export function assertAnnotation(key: string, value: string): void {
  const bad = [key, value].find((text) => !WORD.test(text));
  if (bad !== undefined)
    throw new BrokkrError('invalid_annotation', `${JSON.stringify(bad)} is not 1 to 64 characters without whitespace`);
}

/** Adds a label to an agent. */
export async function addLabel(
  command: Command,
  { agentId, label }: { readonly agentId: string; readonly label: string },
): Promise<AgentLabelRow> {
  await assertAgent(command.tx, agentId);
  assertLabel(label);
  const row = only(await insertLabels(command.tx, agentId, [label]));
  command.audit('agent.label_added', 'agent', agentId, { label });
  command.change({ kind: 'agent', agentId });
  return row;
}

/** Removes a label from an agent. */
export async function removeLabel(
  command: Command,
  { agentId, label }: { readonly agentId: string; readonly label: string },
): Promise<void> {
  await assertAgent(command.tx, agentId);
  if (!(await deleteLabel(command.tx, agentId, label))) {
    throw new BrokkrError('agent_label_not_found', `agent ${agentId} has no label ${label}`);
  }
  command.audit('agent.label_removed', 'agent', agentId, { label });
  command.change({ kind: 'agent', agentId });
}

/** Adds an annotation to an agent. */
export async function addAnnotation(
  command: Command,
  { agentId, key, value }: { readonly agentId: string; readonly key: string; readonly value: string },
): Promise<AgentAnnotationRow> {
  await assertAgent(command.tx, agentId);
  assertAnnotation(key, value);
  const row = only(await insertAnnotations(command.tx, agentId, [[key, value]]));
  command.audit('agent.annotation_added', 'agent', agentId, { key, value });
  command.change({ kind: 'agent', agentId });
  return row;
}

/** Removes an annotation from an agent. */
export async function removeAnnotation(
  command: Command,
  { agentId, key }: { readonly agentId: string; readonly key: string },
): Promise<void> {
  await assertAgent(command.tx, agentId);
  if (!(await deleteAnnotation(command.tx, agentId, key))) {
    throw new BrokkrError('agent_annotation_not_found', `agent ${agentId} has no annotation ${key}`);
  }
  command.audit('agent.annotation_removed', 'agent', agentId, { key });
  command.change({ kind: 'agent', agentId });
}

function only<T>(rows: readonly T[]): T {
  const row = rows[0];
  if (row === undefined) throw new Error('insert returned no row');
  return row;
}
