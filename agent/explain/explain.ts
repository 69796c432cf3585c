import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { isOpaque, keyString, type ManifestEntry } from '#lib/object.ts';
import { fitsFilter, type ObjectFilter } from '#lib/object-filter.ts';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import {
  type ExplainQuery,
  type Explanation,
  ExplanationSchema,
  type ObjectExplanation,
  ObjectExplanationSchema,
} from '#proto/brokkr/v1/explain_pb.js';
import { shortDigest } from '../apply/plan.ts';
import type { Engine } from '../engine.ts';
import { stateOf } from '../health/health.ts';
import type { ReadyState } from '../health/readiness.ts';
import { explainObject } from './detail.ts';
import { type Outlook, type Subject, statusOf, wantedOf } from './state.ts';

/** Objects of one answer at most, and their bytes: a frame has 256 KiB. */
const MAX_OBJECTS = 500;
const MAX_BYTES = 192 * 1024;
const ALL: ObjectFilter = { group: '', kind: '', namespace: '', name: '' };

/**
 * Why objects of a stack are as they are, in the order of their keys: from what the worker knows, without asking the server. A single
 * object that was asked for by name is read and explained in detail. Rejects only with the signal's reason.
 */
export async function explainStack(
  engine: Engine,
  outlook: Outlook,
  { filter = { ...ALL }, limit, after }: Pick<ExplainQuery, 'limit' | 'after'> & { readonly filter?: ObjectFilter | undefined },
  signal: AbortSignal,
): Promise<Explanation> {
  const fitting = subjects(outlook, engine.defaultNamespace).filter(({ object, entry }) => {
    return fitsFilter({ ...object, ...(entry && { plural: entry.plural }) }, filter);
  });
  const [only] = fitting;
  if (only && fitting.length === 1 && filter.name !== '') {
    const detail = await explainObject(engine, outlook, only, signal);
    return create(ExplanationSchema, { objects: [{ ...explanationOf(only, outlook), detail }] });
  }
  const objects: ObjectExplanation[] = [];
  let bytes = 0;
  const most = Math.min(limit || MAX_OBJECTS, MAX_OBJECTS);
  const rest = fitting.filter(({ key }) => key > after);
  for (const subject of rest) {
    const explanation = explanationOf(subject, outlook);
    bytes += toBinary(ObjectExplanationSchema, explanation).length;
    if (objects.length >= most || (objects.length > 0 && bytes > MAX_BYTES)) break;
    objects.push(explanation);
  }
  const next = objects.length < rest.length ? (rest[objects.length - 1]?.key ?? '') : '';
  return create(ExplanationSchema, { objects, next });
}

/** Everything the target wants and everything the inventory has, in the order of the keys. */
function subjects(outlook: Outlook, defaultNamespace: string): Subject[] {
  const { goal, inventory } = outlook;
  const manifest = goal.kind === 'target' && !isOpaque(goal.target.manifest) ? goal.target.manifest : [];
  const all = new Map<string, Subject>();
  for (const entry of manifest) {
    const object = inCluster(entry, outlook, defaultNamespace);
    const key = keyString(object);
    all.set(key, { key, object, wanted: entry, entry: inventory.entries.get(key) });
  }
  for (const [key, entry] of inventory.entries) {
    if (!all.has(key)) all.set(key, { key, object: entry, wanted: undefined, entry });
  }
  return [...all.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** An entry under the name it has in the cluster, found by what is known of it: whether its kind has namespaces is for discovery to say. */
function inCluster(entry: ManifestEntry, { inventory, problems }: Outlook, defaultNamespace: string): ManifestEntry {
  const other = { ...entry, namespace: entry.namespace === '' ? defaultNamespace : '' };
  const key = keyString(other);
  return inventory.entries.has(key) || problems.has(key) ? other : entry;
}

const HEALTHS: Readonly<Record<ReadyState, Health>> = {
  ready: Health.HEALTHY,
  progressing: Health.DEGRADED,
  degraded: Health.DEGRADED,
  suspended: Health.DEGRADED,
  failing: Health.FAILING,
  unknown: Health.UNKNOWN,
};

function explanationOf(subject: Subject, outlook: Outlook): ObjectExplanation {
  const { entry, wanted, object } = subject;
  const { goal, inventory, seen, retryAtMs } = outlook;
  const status = statusOf(subject, outlook);
  const rules = goal.kind === 'target' ? goal.target.options.healthRules : [];
  const health = entry && stateOf(entry, seen, rules);
  const settled = status.state === 'in_sync' || status.state === 'drift_reported';
  return create(ObjectExplanationSchema, {
    status,
    version: object.version,
    wanted: wantedOf(subject, outlook),
    generation: goal.kind === 'target' ? goal.target.generation : inventory.head.receivedGeneration,
    ...(wanted && { wantedDigest: shortDigest(wanted.objectDigest) }),
    ...(entry && { appliedDigest: entry.digest, uid: entry.uid, resourceVersion: entry.print?.resourceVersion ?? '' }),
    ...(health && {
      health: HEALTHS[health.state],
      healthReason: [health.reason, health.message].filter((text) => text !== '').join(': '),
    }),
    ...(retryAtMs !== undefined && !settled && { retryAt: timestampFromMs(retryAtMs) }),
  });
}
