import { KubeError, missing } from './errors.ts';
import { type Query, type Resource, resourcePath } from './resource.ts';
import type { Impersonation, KubeTransport } from './transport.ts';

/** One entry of `metadata.managedFields`. */
export interface ManagedFieldsEntry {
  readonly manager?: string;
  readonly operation?: 'Apply' | 'Update';
  readonly apiVersion?: string;
  readonly time?: string;
  readonly subresource?: string;
  readonly fieldsType?: string;
  readonly fieldsV1?: Readonly<Record<string, unknown>>;
}

/** Metadata as the server answers it. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly {
    readonly apiVersion: string;
    readonly kind: string;
    readonly name: string;
    readonly uid: string;
  }[];
  readonly managedFields?: readonly ManagedFieldsEntry[];
}

/** A live object: metadata, and everything else when the whole object was asked for. */
export interface KubeObject {
  /** Absent on the items of a list. */
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

/** Whether objects come whole or as their metadata only (no Secret data then, and about half the bytes). */
export type Content = 'metadata' | 'full';

/** Which object of which kind. */
export interface ObjectRef {
  readonly resource: Resource;
  /** Required for namespaced kinds, ignored for the others. */
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** A server-side apply. */
export interface ApplyRequest extends ObjectRef {
  /** The object as JSON text, sent as it is. */
  readonly body: string;
  /** At most 128 bytes. */
  readonly fieldManager: string;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly impersonate?: Impersonation | undefined;
}

/** What an apply did: metadata only, whatever the kind. */
export interface Applied {
  readonly created: boolean;
  readonly metadata: ObjectMeta;
}

/** `accept` header values for metadata-only answers (meta/v1, served for every kind). */
export const ACCEPT_METADATA = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json';
const ACCEPT_METADATA_LIST = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json';

/**
 * Server-side apply. Idempotent, so a dead idle connection is retried; `fieldValidation=Strict` makes duplicate keys an error.
 * Rejects with `KubeError`, see `classify`.
 */
export async function applyObject(transport: KubeTransport, request: ApplyRequest, signal: AbortSignal): Promise<Applied> {
  const { status, value } = await transport.json(
    'PATCH',
    pathOf(request),
    {
      verb: 'apply',
      query: {
        fieldManager: request.fieldManager,
        fieldValidation: 'Strict',
        force: request.force ? true : undefined,
        dryRun: request.dryRun ? 'All' : undefined,
      },
      headers: { 'content-type': 'application/apply-patch+yaml', accept: ACCEPT_METADATA },
      body: request.body,
      idempotent: true,
      impersonate: request.impersonate,
    },
    signal,
  );
  return { created: status === 201, metadata: (value as KubeObject).metadata };
}

/** The object, or undefined when it (or its namespace) does not exist. Rejects with a 404 when the kind does not. */
export async function findObject(
  transport: KubeTransport,
  ref: ObjectRef,
  content: Content,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const headers = { accept: content === 'metadata' ? ACCEPT_METADATA : 'application/json' };
  try {
    return (await transport.json('GET', pathOf(ref), { headers }, signal)).value as KubeObject;
  } catch (error) {
    if (missing(error, ref.resource.plural) === 'object') return undefined;
    throw error;
  }
}

/** A plain create (POST), for probes with `dryRun` and objects we own alone. A 409 `AlreadyExists` is a `KubeError` of class `race`. */
export async function createObject(
  transport: KubeTransport,
  request: Omit<ObjectRef, 'name'> & Pick<ApplyRequest, 'body' | 'dryRun' | 'impersonate'> & { readonly fieldManager?: string },
  signal: AbortSignal,
): Promise<KubeObject> {
  const { value } = await transport.json(
    'POST',
    resourcePath(request.resource, request.namespace),
    {
      verb: 'create',
      query: { fieldManager: request.fieldManager, fieldValidation: 'Strict', dryRun: request.dryRun ? 'All' : undefined },
      body: request.body,
      impersonate: request.impersonate,
    },
    signal,
  );
  return value as KubeObject;
}

/** One operation of a JSON patch (RFC 6902). */
export interface PatchOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'test';
  /** JSON pointer. */
  readonly path: string;
  readonly value?: unknown;
}

/** A JSON patch; add a `test` of `/metadata/resourceVersion` to make it conditional (422 when it fails). Answers with metadata. */
export async function patchObject(
  transport: KubeTransport,
  request: ObjectRef & {
    readonly operations: readonly PatchOperation[];
    readonly fieldManager: string;
    readonly impersonate?: Impersonation | undefined;
  },
  signal: AbortSignal,
): Promise<ObjectMeta> {
  const { value } = await transport.json(
    'PATCH',
    pathOf(request),
    {
      query: { fieldManager: request.fieldManager },
      headers: { 'content-type': 'application/json-patch+json', accept: ACCEPT_METADATA },
      body: JSON.stringify(request.operations),
      impersonate: request.impersonate,
    },
    signal,
  );
  return (value as KubeObject).metadata;
}

/** A delete that must hit the object we mean. */
export interface RemoveRequest extends ObjectRef {
  /** The object must still be this one; anything else is a 409. */
  readonly uid: string;
  /** And must not have changed since. */
  readonly resourceVersion?: string | undefined;
  readonly propagation: 'Background' | 'Foreground' | 'Orphan';
  readonly dryRun?: boolean;
  readonly impersonate?: Impersonation | undefined;
}

/** `gone`: deleted now; `terminating`: finalizers are still at work; `absent`: there was nothing to delete. */
export type Removed = 'gone' | 'terminating' | 'absent';

/** Deletes an object by UID. Rejects with a 409 `KubeError` (class `race`) when another object has the name by now. */
export async function removeObject(transport: KubeTransport, request: RemoveRequest, signal: AbortSignal): Promise<Removed> {
  const { uid, resourceVersion } = request;
  const options = {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    preconditions: { uid, ...(resourceVersion !== undefined && { resourceVersion }) },
    propagationPolicy: request.propagation,
    ...(request.dryRun && { dryRun: ['All'] }),
  };
  try {
    const { value } = await transport.json(
      'DELETE',
      pathOf(request),
      { headers: { accept: ACCEPT_METADATA }, body: JSON.stringify(options), idempotent: true, impersonate: request.impersonate },
      signal,
    );
    return (value as KubeObject).metadata?.deletionTimestamp === undefined ? 'gone' : 'terminating';
  } catch (error) {
    if (missing(error, request.resource.plural) === 'object') return 'absent';
    throw error;
  }
}

/** Which objects to list or watch. */
export interface ListRequest {
  readonly resource: Resource;
  /** All namespaces when absent. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly content: Content;
  /** Objects a page, 500 unless given; 0 asks for everything at once. Ignored by the server for `resourceVersion` 0. */
  readonly limit?: number;
  /** `0` allows an answer from the server's cache, absent is a consistent read. */
  readonly resourceVersion?: string | undefined;
  /** An answer at least as new as this version, from the server's cache when that is so new. Instead of `resourceVersion`. */
  readonly notOlderThan?: string | undefined;
}

/** A part of a list; every page of one list has the same resource version. */
export interface ListPage {
  readonly items: readonly KubeObject[];
  readonly resourceVersion: string;
}

const PAGE_SIZE = 500;

/** Lists page by page. Rejects with a 410 `KubeError` (class `expired`) when the list took longer than the server keeps its state. */
export async function* listObjects(
  transport: KubeTransport,
  request: ListRequest,
  signal: AbortSignal,
): AsyncGenerator<ListPage> {
  const path = resourcePath(request.resource, request.namespace);
  const headers = { accept: request.content === 'metadata' ? ACCEPT_METADATA_LIST : 'application/json' };
  let next: string | undefined;
  do {
    const query: Query = {
      labelSelector: request.labelSelector,
      fieldSelector: request.fieldSelector,
      limit: request.limit === 0 ? undefined : (request.limit ?? PAGE_SIZE),
      resourceVersion: next === undefined ? (request.notOlderThan ?? request.resourceVersion) : undefined,
      resourceVersionMatch: next === undefined && request.notOlderThan !== undefined ? 'NotOlderThan' : undefined,
      continue: next,
    };
    const { value } = await transport.json('GET', path, { verb: 'list', query, headers }, signal);
    const page = value as {
      readonly items?: readonly KubeObject[];
      readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
    };
    yield { items: page.items ?? [], resourceVersion: page.metadata.resourceVersion };
    next = page.metadata.continue || undefined;
  } while (next !== undefined);
}

function pathOf({ resource, namespace, name }: ObjectRef): string {
  if (resource.namespaced && namespace === undefined)
    throw new KubeError(400, `${resource.plural} ${name} needs a namespace`, { reason: 'BadRequest' });
  return resourcePath(resource, namespace, name);
}
