import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { errorText } from '#lib/errors.ts';
import type { ObjectKey } from '#lib/object.ts';
import type { Problem } from '#lib/yaml-problems.ts';
import { type ObjectStatus, ObjectStatusSchema } from '#proto/brokkr/v1/content_pb.js';
import { type AttemptEvent, AttemptEventSchema } from '#proto/brokkr/v1/sync_pb.js';
import { KubeError } from '../kube/errors.ts';

const MAX_OBJECT_MESSAGE = 1024;
const MAX_EVENT_MESSAGE = 4096;
/** Objects named in one status or event. */
export const MAX_OBJECTS = 100;

/** What became of an object. Messages are cut to 1 KiB. */
export function objectStatus(
  key: Pick<ObjectKey, 'group' | 'kind' | 'namespace' | 'name'>,
  state: string,
  reason: string,
  message: string,
  place: MessageInitShape<typeof ObjectStatusSchema> = {},
): ObjectStatus {
  const { group, kind, namespace, name } = key;
  return create(ObjectStatusSchema, {
    ...place,
    group,
    kind,
    namespace,
    name,
    state,
    reason,
    message: cut(message, MAX_OBJECT_MESSAGE),
  });
}

/** A problem of a text as the status of the object it is about. `positions`: whether it counts documents of the published text. */
export function problemStatus(problem: Problem, positions: boolean): ObjectStatus {
  const [apiVersion = '', kind = '', name = ''] = (problem.object ?? '').split(' ');
  const [first = '', second] = name.split('/');
  const key = {
    group: apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '',
    kind,
    namespace: second === undefined ? '' : first,
    name: second ?? first,
  };
  return objectStatus(key, 'rejected', problem.rule, problem.message, {
    path: problem.path ?? '',
    ...(problem.line !== undefined && { line: problem.line }),
    ...(problem.column !== undefined && { column: problem.column }),
    ...(positions && problem.document > 0 && { document: problem.document }),
  });
}

/** A problem in words, with its place. */
export function problemText(problem: Problem, positions: boolean): string {
  const place = [
    ...(positions && problem.document > 0 ? [`document ${problem.document}`] : []),
    ...(problem.object === undefined ? [] : [problem.object]),
    ...(problem.line === undefined ? [] : [`line ${problem.line}`]),
    ...(problem.column === undefined ? [] : [`column ${problem.column}`]),
    ...(problem.path ? [problem.path] : []),
  ];
  return `${place.join(', ')}${place.length > 0 ? ': ' : ''}${problem.message}`;
}

/** What the authoriser says (k8s.io/apiserver, responsewriters.Forbidden): it names user, verb and resource, and has not seen the object. */
const FORBIDDEN =
  /User "[^"]*" cannot \w+ resource "[^"]*" in API group "[^"]*"( in the namespace "[^"]*"| at the cluster scope)?/;

/** Why a request about an object failed, without values of a Secret. */
export function failureText(kind: string, error: unknown): string {
  if (kind !== 'Secret' || !(error instanceof KubeError)) return errorText(error);
  const forbidden = error.status === 403 ? FORBIDDEN.exec(error.message)?.[0] : undefined;
  if (forbidden !== undefined) return forbidden;
  const fields = error.causes.map(({ field, reason }) => `${field} (${reason})`).join(', ');
  return `${error.reason || `HTTP ${error.status}`}${fields === '' ? '' : `: ${fields}`}`;
}

/** An event of an attempt; `seq` is left to the outbox. */
export function attemptEvent(
  event: Omit<MessageInitShape<typeof AttemptEventSchema>, '$typeName' | 'seq' | 'at'> & {
    readonly atMs: number;
    readonly message: string;
    readonly objects: readonly ObjectStatus[];
  },
): AttemptEvent {
  const { atMs, objects, message, ...rest } = event;
  return create(AttemptEventSchema, {
    ...rest,
    message: cut(message, MAX_EVENT_MESSAGE),
    objects: objects.slice(0, MAX_OBJECTS),
    at: timestampFromMs(atMs),
  });
}

/** `ConfigMap shop/settings: why`, for messages. */
export function statusText(status: ObjectStatus): string {
  const { kind, namespace, name, message } = status;
  return `${kind} ${namespace === '' ? '' : `${namespace}/`}${name}: ${message}`;
}

function cut(text: string, bytes: number): string {
  if (Buffer.byteLength(text) <= bytes) return text;
  return `${Buffer.from(text)
    .subarray(0, bytes - 4)
    .toString('utf8')
    .replace(/�+$/, '')} …`;
}
