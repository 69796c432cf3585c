import type { Queryable } from '../database.ts';
import type { Acceptance } from '../targeting/store.ts';

/** A row of `stack_label`. */
export interface LabelRow {
  readonly id: string;
  readonly stack_id: string;
  readonly label: string;
}

/** A row of `stack_annotation`. */
export interface AnnotationRow {
  readonly id: string;
  readonly stack_id: string;
  readonly key: string;
  readonly value: string;
}

/** Labels of a stack in alphabetical order. */
export async function listLabels(db: Queryable, stackId: string): Promise<LabelRow[]> {
  return await db.query<LabelRow>('select id, stack_id, label from stack_label where stack_id = $1 order by label', [stackId]);
}

/** Adds a label; a second one of the same name is a unique violation. */
export async function insertLabel(tx: Queryable, stackId: string, label: string): Promise<LabelRow[]> {
  return await tx.query<LabelRow>('insert into stack_label (stack_id, label) values ($1, $2) returning id, stack_id, label', [
    stackId,
    label,
  ]);
}

/** Adds the labels that the stack does not have; answers those. */
export async function addLabels(tx: Queryable, stackId: string, labels: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ label: string }>(
    `insert into stack_label (stack_id, label) select $1, l from unnest($2::text[]) l on conflict (stack_id, label) do nothing returning label`,
    [stackId, labels],
  );
  return rows.map(({ label }) => label);
}

/** Removes a label; answers whether there was one. */
export async function deleteLabel(tx: Queryable, stackId: string, label: string): Promise<boolean> {
  return (await tx.query('delete from stack_label where stack_id = $1 and label = $2 returning id', [stackId, label])).length > 0;
}

/** Removes every other label; answers those. */
export async function deleteLabelsExcept(tx: Queryable, stackId: string, labels: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ label: string }>(
    'delete from stack_label where stack_id = $1 and label <> all($2::text[]) returning label',
    [stackId, labels],
  );
  return rows.map(({ label }) => label);
}

/** Annotations of a stack in the order of their keys. */
export async function listAnnotations(db: Queryable, stackId: string): Promise<AnnotationRow[]> {
  return await db.query<AnnotationRow>('select id, stack_id, key, value from stack_annotation where stack_id = $1 order by key', [
    stackId,
  ]);
}

/** Adds an annotation; a second one with the same key is a unique violation. */
export async function insertAnnotation(tx: Queryable, stackId: string, key: string, value: string): Promise<AnnotationRow[]> {
  return await tx.query<AnnotationRow>(
    'insert into stack_annotation (stack_id, key, value) values ($1, $2, $3) returning id, stack_id, key, value',
    [stackId, key, value],
  );
}

/** Removes an annotation; answers whether there was one. */
export async function deleteAnnotation(tx: Queryable, stackId: string, key: string): Promise<boolean> {
  return (
    (await tx.query('delete from stack_annotation where stack_id = $1 and key = $2 returning id', [stackId, key])).length > 0
  );
}

/** Removes every annotation that is not among the pairs; answers their keys. */
export async function deleteAnnotationsExcept(
  tx: Queryable,
  stackId: string,
  pairs: ReadonlyMap<string, string>,
): Promise<string[]> {
  const rows = await tx.query<{ key: string }>(
    `delete from stack_annotation where stack_id = $1
       and not exists (select from unnest($2::text[], $3::text[]) p (key, value) where p.key = stack_annotation.key and p.value = stack_annotation.value)
     returning key`,
    [stackId, [...pairs.keys()], [...pairs.values()]],
  );
  return rows.map(({ key }) => key);
}

/** Adds the pairs that the stack does not have; answers their keys. */
export async function addAnnotations(tx: Queryable, stackId: string, pairs: ReadonlyMap<string, string>): Promise<string[]> {
  const rows = await tx.query<{ key: string }>(
    `insert into stack_annotation (stack_id, key, value) select $1, p.key, p.value from unnest($2::text[], $3::text[]) p (key, value)
     on conflict (stack_id, key) do nothing returning key`,
    [stackId, [...pairs.keys()], [...pairs.values()]],
  );
  return rows.map(({ key }) => key);
}

/** An agent that a request names. */
export interface NamedAgent {
  readonly ref: string;
  readonly agent_id: string;
  readonly cluster_name: string;
  /** False when the agent takes only stacks of registered generators and this one is not. */
  readonly consents: boolean;
}

/** Live agents by id, name or name/cluster; a name used in several clusters gives several rows. */
export async function findAgents(
  tx: Queryable,
  refs: readonly string[],
  { generatorId, acceptance }: { readonly generatorId: string; readonly acceptance: Acceptance },
): Promise<NamedAgent[]> {
  return await tx.query<NamedAgent>(
    `select r.ref, a.id as agent_id, a.cluster_name,
       coalesce(a.acceptance, $3) = 'all'
         or exists (select from agent_generator_registration c where c.agent_id = a.id and c.generator_id = $2) as consents
     from unnest($1::text[]) r (ref)
     join agent a on a.deleted_at is null and (a.id::text = lower(r.ref) or a.name = r.ref or a.name || '/' || a.cluster_name = r.ref)
     order by r.ref, a.cluster_name`,
    [refs, generatorId, acceptance],
  );
}

/** Registers agents with a generator. */
export async function registerAgents(tx: Queryable, generatorId: string, agentIds: readonly string[]): Promise<void> {
  await tx.query(
    `insert into agent_generator_registration (agent_id, generator_id) select a, $1 from unnest($2::uuid[]) a
     on conflict (agent_id, generator_id) do nothing`,
    [generatorId, agentIds],
  );
}

/** Removes every other direct assignment; answers the agents. */
export async function deleteTargetsExcept(tx: Queryable, stackId: string, agentIds: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ agent_id: string }>(
    'delete from agent_target where stack_id = $1 and agent_id <> all($2::uuid[]) returning agent_id',
    [stackId, agentIds],
  );
  return rows.map(({ agent_id }) => agent_id);
}

/** Adds the direct assignments that are missing; answers the agents. */
export async function addTargets(tx: Queryable, stackId: string, agentIds: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ agent_id: string }>(
    `insert into agent_target (agent_id, stack_id) select a, $1 from unnest($2::uuid[]) a
     on conflict (agent_id, stack_id) do nothing returning agent_id`,
    [stackId, agentIds],
  );
  return rows.map(({ agent_id }) => agent_id);
}
