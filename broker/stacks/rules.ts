import { BrokkrError } from '#lib/errors.ts';
import type { Command } from '../api/command.ts';
import type { Acceptance } from '../targeting/store.ts';
import {
  type AnnotationRow,
  addAnnotations,
  addLabels,
  addTargets,
  deleteAnnotation,
  deleteAnnotationsExcept,
  deleteLabel,
  deleteLabelsExcept,
  deleteTargetsExcept,
  findAgents,
  insertAnnotation,
  insertLabel,
  type LabelRow,
  registerAgents,
} from './rules-store.ts';
import { changeSelector, type WantedSelector } from './selector.ts';
import { lockOwned } from './stacks.ts';
import type { StackRow } from './store.ts';

/** Labels, annotation keys and values: 1 to 64 characters, no white space. */
const WORD = /^\S{1,64}$/u;

/** Adds a label to a stack of the caller. */
export async function addLabel(stackId: string, label: string, command: Command): Promise<LabelRow> {
  await lockOwned(command, stackId);
  const [row] = await insertLabel(command.tx, stackId, label);
  if (!row) throw new Error('the label was not inserted');
  changed(command, stackId, 'stack.label_added', { label });
  return row;
}

/** Removes a label. Throws `stack_label_not_found`. */
export async function removeLabel(stackId: string, label: string, command: Command): Promise<void> {
  await lockOwned(command, stackId);
  if (!(await deleteLabel(command.tx, stackId, label)))
    throw new BrokkrError('stack_label_not_found', `the stack has no label ${label}`);
  changed(command, stackId, 'stack.label_removed', { label });
}

/** Adds an annotation to a stack of the caller. */
export async function addAnnotation(stackId: string, key: string, value: string, command: Command): Promise<AnnotationRow> {
  await lockOwned(command, stackId);
  const [row] = await insertAnnotation(command.tx, stackId, key, value);
  if (!row) throw new Error('the annotation was not inserted');
  changed(command, stackId, 'stack.annotation_added', { key, value });
  return row;
}

/** Removes an annotation. Throws `stack_annotation_not_found`. */
export async function removeAnnotation(stackId: string, key: string, command: Command): Promise<void> {
  await lockOwned(command, stackId);
  if (!(await deleteAnnotation(command.tx, stackId, key))) {
    throw new BrokkrError('stack_annotation_not_found', `the stack has no annotation ${key}`);
  }
  changed(command, stackId, 'stack.annotation_removed', { key });
}

function changed(command: Command, stackId: string, action: string, details: Record<string, string>): void {
  command.audit(action, 'stack', stackId, details);
  command.change({ kind: 'stack', stackId });
}

/** Targeting rules as a stack should have them; what is undefined is left alone. */
export interface WantedRules {
  /** Exactly these labels. */
  readonly labels: readonly string[] | undefined;
  /** Labels to have besides. */
  readonly moreLabels: readonly string[];
  /** Exactly these annotations. */
  readonly annotations: ReadonlyMap<string, string> | undefined;
  /** Exactly these direct assignments: id, name or name/cluster. */
  readonly agents: readonly string[] | undefined;
  readonly selector: WantedSelector | undefined;
}

/** Checks the words of the rules. Throws `invalid_label` and `invalid_annotation`. */
export function assertRules({ labels, moreLabels, annotations }: WantedRules): void {
  for (const label of [...(labels ?? []), ...moreLabels]) {
    if (!WORD.test(label))
      throw new BrokkrError('invalid_label', 'a label must have 1 to 64 characters and no white space', {
        details: { field: 'labels' },
      });
  }
  for (const word of [...(annotations ?? [])].flat()) {
    if (WORD.test(word)) continue;
    throw new BrokkrError(
      'invalid_annotation',
      'keys and values of annotations must have 1 to 64 characters and no white space',
      { details: { field: 'annotations' } },
    );
  }
}

/**
 * Makes the rules of a locked stack what is wanted; answers whether anything changed. Throws `agent_not_found`,
 * `agent_not_registered`, `invalid_stack` (a name used in several clusters).
 */
export async function replaceRules(
  command: Command,
  stack: StackRow,
  wanted: WantedRules,
  acceptance: Acceptance,
): Promise<boolean> {
  const labels = await replaceLabels(command, stack.id, wanted);
  const annotations = wanted.annotations ? await replaceAnnotations(command, stack.id, wanted.annotations) : false;
  const targets = wanted.agents ? await replaceTargets(command, stack, wanted.agents, acceptance) : false;
  const selector = wanted.selector ? await changeSelector(command, stack, wanted.selector) : false;
  return labels || annotations || targets || selector;
}

async function replaceLabels({ tx, audit }: Command, stackId: string, { labels, moreLabels }: WantedRules): Promise<boolean> {
  const all = [...new Set([...(labels ?? []), ...moreLabels])];
  const removed = labels ? await deleteLabelsExcept(tx, stackId, all) : [];
  const added = all.length > 0 ? await addLabels(tx, stackId, all) : [];
  for (const label of removed) audit('stack.label_removed', 'stack', stackId, { label });
  for (const label of added) audit('stack.label_added', 'stack', stackId, { label });
  return removed.length + added.length > 0;
}

async function replaceAnnotations({ tx, audit }: Command, stackId: string, pairs: ReadonlyMap<string, string>): Promise<boolean> {
  const removed = await deleteAnnotationsExcept(tx, stackId, pairs);
  const added = await addAnnotations(tx, stackId, pairs);
  for (const key of removed) audit('stack.annotation_removed', 'stack', stackId, { key });
  for (const key of added) audit('stack.annotation_added', 'stack', stackId, { key, value: pairs.get(key) ?? '' });
  return removed.length + added.length > 0;
}

async function replaceTargets(
  command: Command,
  stack: StackRow,
  refs: readonly string[],
  acceptance: Acceptance,
): Promise<boolean> {
  const { tx } = command;
  const agents = await resolveAgents(command, stack, refs, acceptance);
  const removed = await deleteTargetsExcept(tx, stack.id, agents);
  const added = await addTargets(tx, stack.id, agents);
  for (const id of removed) command.audit('agent.target_removed', 'agent', id, { stack_id: stack.id });
  for (const id of added) command.audit('agent.target_added', 'agent', id, { stack_id: stack.id });
  return removed.length + added.length > 0;
}

/** An admin's assignment is consent: agents that ask for registration are registered with the stack's generator. */
async function resolveAgents(
  command: Command,
  stack: StackRow,
  refs: readonly string[],
  acceptance: Acceptance,
): Promise<string[]> {
  const found = await findAgents(command.tx, [...new Set(refs)], { generatorId: stack.generator_id, acceptance });
  const byRef = Map.groupBy(found, ({ ref }) => ref);
  for (const ref of refs) {
    const matches = byRef.get(ref) ?? [];
    if (matches.length === 0) throw new BrokkrError('agent_not_found', `no agent ${ref}`, { details: { agent: ref } });
    if (matches.length > 1) {
      const clusters = matches.map(({ cluster_name }) => cluster_name).join(', ');
      throw new BrokkrError('invalid_stack', `agent ${ref} is in several clusters (${clusters}): say ${ref}/cluster`, {
        details: { field: 'agents' },
      });
    }
  }
  const strangers = [...new Set(found.filter(({ consents }) => !consents).map(({ agent_id }) => agent_id))];
  if (strangers.length > 0) {
    if (command.principal.kind !== 'admin') {
      throw new BrokkrError('agent_not_registered', `agent ${strangers[0]} is not registered with this generator`, {
        details: { agent_id: strangers[0] ?? '' },
      });
    }
    await registerAgents(command.tx, stack.generator_id, strangers);
    for (const id of strangers) {
      command.audit('agent.registered', 'agent', id, { generator_id: stack.generator_id });
      command.change({ kind: 'agent', agentId: id });
    }
  }
  return [...new Set(found.map(({ agent_id }) => agent_id))];
}
