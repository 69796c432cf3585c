import { isMapping } from '#lib/object.ts';
import { objectBody, parseBody } from '#lib/object-body.ts';
import { markAnnotation } from '#lib/object-marks.ts';
import { RecreatePolicy } from '#proto/brokkr/v1/content_pb.js';
import { impersonation } from '../engine.ts';
import { classify, type ErrorClass, KubeError } from '../kube/errors.ts';
import type { Resource } from '../kube/resource.ts';
import { OWNER_ANNOTATION } from '../stack-identity.ts';
import { immutable, named } from './outcome.ts';
import type { PlannedObject } from './plan.ts';
import { objectStatus } from './report.ts';
import { type ApplyRun, type Failure, type Outcome, readMetadata, refOf } from './run.ts';

/** Deleting one of these takes more with it than the object itself. */
const PRECIOUS: ReadonlySet<string> = new Set([
  '/Namespace',
  'apiextensions.k8s.io/CustomResourceDefinition',
  '/PersistentVolume',
  '/PersistentVolumeClaim',
]);
const GONE_POLL_MS = 100;
/** Failures of a probe that say nothing of the object. */
const UNDECIDED: ReadonlySet<ErrorClass> = new Set(['transient', 'transient-slow', 'credential']);
/** Complaints about the name a probe was given say nothing against the object. */
const NAME_FIELDS: ReadonlySet<string> = new Set(['metadata.name', 'metadata.generateName']);

/** The fields a refused update (422) was refused for, as the server names them. */
export function refusedFields({ causes }: KubeError): string[] {
  return [...new Set(causes.map(({ field }) => field).filter((field) => field !== ''))];
}

/**
 * Whether an update was refused only because a field cannot be changed: the server is asked (a dry-run) what it would say to a new object
 * with the same content and another name. False also when that cannot be told, for instance because a quota is used up.
 */
export async function wouldCreate(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  signal: AbortSignal,
): Promise<boolean> {
  const { engine, options } = run;
  const body = parseBody(object.json);
  const { name, ...metadata } = isMapping(body.metadata) ? body.metadata : {};
  const { namespace } = refOf(object, resource);
  const request = {
    ...{ resource, namespace, dryRun: true, impersonate: impersonation(options) },
    body: objectBody({ ...body, metadata: { ...metadata, generateName: `${String(name)}-brokkr-` } }),
  };
  try {
    await engine.kube.limiter.run(() => engine.kube.create(request, signal), 'normal', signal);
    return true;
  } catch (error) {
    if (!(error instanceof KubeError) || UNDECIDED.has(classify(error))) throw error;
    return error.status === 422 && error.causes.length > 0 && error.causes.every(({ field }) => NAME_FIELDS.has(field));
  }
}

/** Whether an object may be deleted and created anew: by its own mark, else by the stack's policy, which spares what is precious. */
export function mayRecreate({ options }: Pick<ApplyRun, 'options'>, { group, kind, marks }: PlannedObject): boolean {
  if (marks.recreate !== undefined) return marks.recreate === 'immutable';
  return options.recreate === RecreatePolicy.IMMUTABLE && !PRECIOUS.has(`${group}/${kind}`) && marks.prune === undefined;
}

/**
 * Deletes an object whose fields cannot be changed, after a last look at it, and waits until it is gone. Undefined when it is: then it can
 * be applied anew. Rejects as the API server does; a 409 when it was replaced meanwhile.
 */
export async function removeForRecreation(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  { uid, fields }: { readonly uid: string; readonly fields: readonly string[] },
  signal: AbortSignal,
): Promise<Outcome | undefined> {
  const { engine, identity, options } = run;
  if (!mayRecreate(run, object)) return immutable(object, fields, 'the policy is not to create the object anew');
  const ref = refOf(object, resource);
  const live = await readMetadata(run, ref, signal);
  if (!live) return undefined;
  if (live.uid !== uid || live.annotations?.[OWNER_ANNOTATION] !== identity.owner)
    return immutable(object, fields, 'the object is not ours to delete');
  if (live.annotations[markAnnotation('prune')] !== undefined && object.marks.recreate === undefined)
    return immutable(object, fields, 'the live object is marked as not to be deleted');
  if (live.deletionTimestamp !== undefined) return terminating(object, live.finalizers ?? []);
  if (engine.deletionsHeld()) {
    const message = `${named(fields)} cannot be changed, and deletions are held`;
    return { kind: 'failed', class: 'dependency', status: objectStatus(object, 'retrying', 'deletions_held', message) };
  }
  const propagation = object.marks.propagation ?? 'Background';
  const request = { ...ref, uid, propagation, impersonate: impersonation(options) } as const;
  await engine.kube.limiter.run(() => engine.kube.remove(request, signal), 'normal', signal);
  return await waitGone(run, object, resource, uid, signal);
}

async function waitGone(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  uid: string,
  signal: AbortSignal,
): Promise<Outcome | undefined> {
  const { engine, stop } = run;
  const until = engine.clock.monotonic() + engine.recreateWaitMs;
  for (;;) {
    const live = await readMetadata(run, refOf(object, resource), signal);
    if (live?.uid !== uid) return undefined;
    if (stop.aborted) return { kind: 'skipped' };
    if (engine.clock.monotonic() >= until) return terminating(object, live.finalizers ?? []);
    await engine.clock.sleep(GONE_POLL_MS, signal);
  }
}

function terminating(object: PlannedObject, finalizers: readonly string[]): Failure {
  const message = `being deleted, to be created anew: ${finalizers.join(', ') || 'its end'} is waited for`;
  return { kind: 'failed', class: 'dependency', status: objectStatus(object, 'terminating', 'finalizers', message) };
}
