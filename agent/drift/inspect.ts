import { keyString } from '#lib/object.ts';
import { prepareStack } from '../apply/content.ts';
import type { PlannedObject } from '../apply/plan.ts';
import type { ApplyRun } from '../apply/run.ts';
import { sendDryRun, startSending } from '../apply/sending.ts';
import { type Engine, forEachLimited } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { classify } from '../kube/errors.ts';
import type { KubeObject, ObjectMeta, ObjectRef } from '../kube/objects.ts';
import type { StackTarget } from '../stack/target.ts';
import { fingerprint, samePrint } from './drift.ts';

/** An object of the inventory, for requests. */
export function entryRef({ group, version, kind, plural, namespaced, namespace, name }: InventoryEntry): ObjectRef {
  const resource = { group, version, kind, plural, namespaced, verbs: [] };
  return { resource, namespace: namespaced ? namespace : undefined, name };
}

/** The live object, or its metadata as a whole object without content; undefined when there is none. At low priority. */
export async function readLive(
  { kube }: Engine,
  entry: InventoryEntry,
  whole: boolean,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const ref = entryRef(entry);
  if (whole) return await kube.limiter.run(() => kube.find(ref, signal), 'low', signal);
  const metadata = await kube.limiter.run(() => kube.findMetadata(ref, signal), 'low', signal);
  return metadata && { metadata };
}

/**
 * The objects `keys` of a stack as they are to be sent, without writing anything. Undefined when their content cannot be had now, or the
 * stack as a whole would be refused.
 */
export async function prepareSome(
  engine: Engine,
  target: StackTarget,
  inventory: Inventory,
  keys: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, PlannedObject> | undefined> {
  try {
    const prepared = await prepareStack(engine, target, inventory, keys, signal);
    if (prepared.kind === 'refused') return undefined;
    return new Map(prepared.plan.changes.map((object) => [keyString(object), object]));
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

/** What a dry-run says about an object: applying it would change nothing, something, would need force, or it cannot be told now. */
export type Answer = 'same' | 'changed' | 'conflict' | 'unknown';

/** A live object whose metadata does not tell whether it is as we want it. */
export interface Question {
  readonly key: string;
  readonly entry: InventoryEntry;
  readonly metadata: ObjectMeta;
}

/**
 * Asks the server, at low priority, whether applying the objects again would change them. A dry-run is what settles it: it costs the
 * server what an apply costs, and it alone knows defaults, spellings of quantities and what webhooks make of an object.
 */
export async function askServer(
  engine: Engine,
  target: StackTarget,
  inventory: Inventory,
  questions: readonly Question[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Answer>> {
  const answers = new Map<string, Answer>();
  if (questions.length === 0) return answers;
  const objects = await prepareSome(engine, target, inventory, new Set(questions.map(({ key }) => key)), signal);
  const run: ApplyRun = {
    ...{ engine, identity: inventory.identity, options: target.options, before: inventory.entries },
    ...{ seen: new Map(), terminating: new Map() },
    ...{ freshGroups: new Set<string>(), unanswered: { count: 0 }, onApplied: () => undefined, stop: signal, priority: 'low' },
  };
  await forEachLimited(questions, engine.share, async ({ key, metadata }) => {
    const object = objects?.get(key);
    answers.set(key, object ? await dryRun(run, object, metadata, signal) : 'unknown');
  });
  return answers;
}

/** Without force: what is left to others shows as a conflict, and an apply decides about it. */
async function dryRun(run: ApplyRun, object: PlannedObject, live: ObjectMeta, signal: AbortSignal): Promise<Answer> {
  const { fieldManager } = run.identity;
  if (!object.resource) return 'unknown';
  try {
    const { metadata } = await sendDryRun(startSending(run, object, object.resource), false, signal);
    const same = metadata.uid === live.uid && samePrint(fingerprint(metadata, fieldManager), fingerprint(live, fieldManager));
    return same ? 'same' : 'changed';
  } catch (error) {
    signal.throwIfAborted();
    return classify(error) === 'policy' ? 'conflict' : 'unknown';
  }
}
