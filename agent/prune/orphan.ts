import type { Engine } from '../engine.ts';
import type { ObjectMeta, ObjectRef } from '../kube/objects.ts';
import type { Impersonation } from '../kube/transport.ts';
import { APPLYSET_LABEL, OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from '../stack-identity.ts';

/** Takes our labels, annotation and field ownership off an object, which stays as it is. Rejects with a 409 (class `race`) when it changed. */
export async function orphan(
  { kube }: Engine,
  identity: StackIdentity,
  ref: ObjectRef,
  live: ObjectMeta,
  impersonate: Impersonation | undefined,
  signal: AbortSignal,
): Promise<void> {
  const others = (live.managedFields ?? []).filter(({ manager }) => manager !== identity.fieldManager);
  const operations = [
    ...[STACK_LABEL, APPLYSET_LABEL].filter((name) => live.labels?.[name] !== undefined).map((name) => remove('labels', name)),
    ...(live.annotations?.[OWNER_ANNOTATION] === undefined ? [] : [remove('annotations', OWNER_ANNOTATION)]),
    // An empty list would mean "leave them alone"; one empty entry means "none" (Kubernetes docs, "Clearing managedFields").
    { op: 'replace', path: '/metadata/managedFields', value: others.length > 0 ? others : [{}] },
    // A version that is not the present one is a conflict; a `test` that fails would look like invalid content.
    { op: 'replace', path: '/metadata/resourceVersion', value: live.resourceVersion },
  ] as const;
  const request = { ...ref, operations, fieldManager: 'brokkr-orphan', impersonate };
  await kube.limiter.run(() => kube.patchJson(request, signal), 'normal', signal);
}

function remove(map: 'labels' | 'annotations', name: string): { readonly op: 'remove'; readonly path: string } {
  return { op: 'remove', path: `/metadata/${map}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}` };
}
