import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { errorText } from '#lib/errors.ts';
import { isOpaque, keyString } from '#lib/object.ts';
import {
  type FieldDifference,
  type FieldWriterSchema,
  type LiveObjectSchema,
  type ObjectDetail,
  ObjectDetailSchema,
} from '#proto/brokkr/v1/explain_pb.js';
import { prepareStack } from '../apply/content.ts';
import { managerKind } from '../apply/field-managers.ts';
import { paths, pathText } from '../apply/managed-fields.ts';
import type { PlannedObject } from '../apply/plan.ts';
import { failureText } from '../apply/report.ts';
import { fieldsOf } from '../apply/takeover.ts';
import type { Engine } from '../engine.ts';
import type { KubeObject, ManagedFieldsEntry } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { differences } from './differences.ts';
import { policiesOf } from './policies.ts';
import { type Outlook, type Subject, statusOf } from './state.ts';

/** Fields named of one manager, and finalizers of one object. */
const MAX_FIELDS = 10;
const MAX_FINALIZERS = 20;

/** What was found in the cluster; `error` when it could not be looked at. */
type Found = { readonly live: KubeObject | undefined } | { readonly error: string };
/** The object as it is to be; `why` when the text cannot be had or read. */
type Desired = { readonly object: PlannedObject } | { readonly why: string };

/** Reads one object, at low priority, and compares it with what is wanted. What cannot be told is said to be so. Rejects only with the signal's reason. */
export async function explainObject(
  engine: Engine,
  outlook: Outlook,
  subject: Subject,
  signal: AbortSignal,
): Promise<ObjectDetail> {
  const found = await read(engine, subject, signal);
  const desired = await prepare(engine, outlook, subject, signal);
  const live = 'live' in found ? found.live : undefined;
  const { fieldManager } = outlook.inventory.identity;
  const planned = 'object' in desired ? desired.object : undefined;
  const differing = live && planned ? differences({ wanted: planned, live, entry: subject.entry, fieldManager }) : [];
  return create(ObjectDetailSchema, {
    summary: summary(found, desired, subject, outlook, differing),
    ...(live && { live: liveOf(live) }),
    readError: 'error' in found ? found.error : '',
    differences: differing,
    differencesUnknown: 'error' in found ? 'the live object could not be read' : 'why' in desired ? desired.why : '',
    writers: (live?.metadata.managedFields ?? []).map((entry) => writerOf(entry, fieldManager)),
    policies: policiesOf(engine, outlook, subject, planned?.marks ?? subject.entry?.marks ?? {}),
  });
}

/** The live object; of a Secret its metadata only. */
async function read(engine: Engine, { object, entry }: Subject, signal: AbortSignal): Promise<Found> {
  const { kube } = engine;
  const { group, version, kind, name, namespace } = object;
  try {
    let resource: Resource;
    if (entry) resource = { group, version: entry.version, kind, plural: entry.plural, namespaced: entry.namespaced, verbs: [] };
    else {
      const mapping = await kube.resources.resourceFor(group, version, kind, signal);
      if (mapping.kind !== 'found')
        return { error: mapping.kind === 'unknown' ? mapping.reason : `the cluster does not know the kind ${kind}` };
      resource = mapping.resource;
    }
    const ref = { resource, namespace: resource.namespaced ? namespace || engine.defaultNamespace : undefined, name };
    const isSecret = group === '' && kind === 'Secret';
    return await kube.limiter.run(
      async () => {
        if (!isSecret) return { live: await kube.find(ref, signal) };
        const metadata = await kube.findMetadata(ref, signal);
        return { live: metadata && { metadata } };
      },
      'low',
      signal,
    );
  } catch (error) {
    signal.throwIfAborted();
    return { error: failureText(kind, error) };
  }
}

/** The object as an apply would send it. */
async function prepare(engine: Engine, { goal, inventory }: Outlook, subject: Subject, signal: AbortSignal): Promise<Desired> {
  if (goal.kind === 'tombstone') return { why: 'nothing is wanted: the stack leaves the agent' };
  if (goal.kind === 'none') return { why: 'the broker has not sent the content since the agent started' };
  const { target } = goal;
  const isWhole = isOpaque(target.manifest);
  if (!subject.wanted && !isWhole) return { why: 'it is not wanted' };
  const manifest = isWhole || !subject.wanted ? target.manifest : [subject.wanted];
  try {
    const prepared = await prepareStack(engine, { ...target, manifest }, inventory, new Set([subject.key]), signal);
    if (prepared.kind === 'refused') return { why: prepared.message };
    const object = prepared.plan.changes.find((change) => keyString(change) === subject.key);
    return object ? { object } : { why: 'it is not wanted' };
  } catch (error) {
    signal.throwIfAborted();
    return { why: `the content cannot be had: ${errorText(error)}` };
  }
}

/** Why the two differ, or that they do not. */
function summary(
  found: Found,
  desired: Desired,
  subject: Subject,
  outlook: Outlook,
  differing: readonly FieldDifference[],
): string {
  const { state, message } = statusOf(subject, outlook);
  const why = message === '' ? '' : `: ${message}`;
  if ('error' in found) return `it cannot be read, ${state} as far as is known${why}`;
  const { live } = found;
  if (!live) return subject.wanted ? `it does not exist though it is wanted${why}` : `it does not exist${why}`;
  const { deletionTimestamp, finalizers = [], uid } = live.metadata;
  if (deletionTimestamp !== undefined) {
    const holding = finalizers.length === 0 ? 'the server is at it' : `held by ${finalizers.slice(0, MAX_FINALIZERS).join(', ')}`;
    return `it is being deleted since ${deletionTimestamp}, ${holding}${why}`;
  }
  if (subject.entry && subject.entry.uid !== '' && subject.entry.uid !== uid) return `another object has taken its name${why}`;
  if (differing.length > 0) return `${differing.length} ${differing.length === 1 ? 'field differs' : 'fields differ'}${why}`;
  if (state === 'in_sync') return 'why' in desired ? 'it is as it was applied' : 'it is as wanted';
  return `${state.replaceAll('_', ' ')}${why}`;
}

function liveOf({ metadata }: KubeObject): MessageInitShape<typeof LiveObjectSchema> {
  const { uid, resourceVersion, generation = 0, creationTimestamp, deletionTimestamp, finalizers = [] } = metadata;
  return {
    ...{ uid, resourceVersion, generation: BigInt(generation), finalizers: finalizers.slice(0, MAX_FINALIZERS) },
    ...(creationTimestamp !== undefined && { createdAt: timestampFromDate(new Date(creationTimestamp)) }),
    ...(deletionTimestamp !== undefined && { deletedAt: timestampFromDate(new Date(deletionTimestamp)) }),
  };
}

function writerOf(entry: ManagedFieldsEntry, fieldManager: string): MessageInitShape<typeof FieldWriterSchema> {
  const { manager = '', operation = '', subresource = '', time } = entry;
  const fields = [...paths(fieldsOf(entry))];
  return {
    ...{ manager, operation, subresource, who: managerKind(entry, fieldManager), fieldsTotal: fields.length },
    fields: fields.slice(0, MAX_FIELDS).map(pathText),
    ...(time !== undefined && { at: timestampFromDate(new Date(time)) }),
  };
}
