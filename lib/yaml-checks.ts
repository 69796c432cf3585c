import { canonicalJson, isMapping, type ObjectKey, type Value, type ValueObject } from './object.ts';
import { type Marks, readMarks } from './object-marks.ts';
import { jsonPointer } from './yaml-problems.ts';

/** Bytes of one object as canonical JSON (etcd's default request limit, 1.5 MiB). */
const MAX_OBJECT_BYTES = 1_572_864;

/** Bytes of all values of one ConfigMap or Secret (MaxSecretSize of the Kubernetes API). */
const MAX_DATA_BYTES = 1_048_576;

/** Bytes of all annotations of one object, keys and values (TotalAnnotationSizeLimitB of the Kubernetes API). */
const MAX_ANNOTATION_BYTES = 262_144;

/** The annotation that puts an object into a later (or, negative, earlier) wave of the apply. */
const WAVE_ANNOTATION = 'brokkr.io/wave';

/** Takes a problem of an object; `path` is a JSON pointer, '' for the object itself. */
export type ReportObject = (severity: 'error' | 'warning', rule: string, path: string, message: string) => void;

/** An object that passed the checks, without the fields only a server may set. */
export interface CheckedObject {
  readonly key: ObjectKey;
  /** The object to be sent; shares parts with what was given. */
  readonly object: ValueObject;
  /** Its canonical JSON, of which the object digest is taken. */
  readonly canonical: string;
  readonly wave: number;
  readonly marks: Marks;
}

/** Fields of `metadata` that belong to the server; null (as `kubectl create --dry-run -o yaml` writes) is dropped in silence. */
const SERVER_FIELDS = ['managedFields', 'uid', 'resourceVersion', 'creationTimestamp', 'generation', 'selfLink'];

const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const KIND = /^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$/;
const VERSION = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const WAVE = /^-?[0-9]{1,6}$/;

/** Groups of Kubernetes itself whose names may be any path segment. */
const PATH_SEGMENT_GROUPS = new Set(['rbac.authorization.k8s.io', 'certificates.k8s.io']);

/**
 * Checks one object and takes off what only a server may set: required fields, names, sizes, labels and annotations are
 * texts. Reports everything it finds; undefined when an error makes the object unusable. Never quotes a value.
 */
export function checkObject(value: Value, report: ReportObject): CheckedObject | undefined {
  if (!isMapping(value)) {
    report('error', 'not_an_object', '', 'the document must be a mapping with apiVersion, kind and metadata');
    return undefined;
  }
  let failed = false;
  const track: ReportObject = (severity, ...rest) => {
    failed ||= severity === 'error';
    report(severity, ...rest);
  };
  const { metadata: rawMetadata, status, ...rest } = value;
  if (status !== undefined && status !== null)
    track('warning', 'server_field', '/status', 'status is set by the cluster and is left out');
  if (!isMapping(rawMetadata)) {
    track('error', 'missing_field', '/metadata', 'metadata is required and must be a mapping');
    return undefined;
  }
  const metadata = { ...rawMetadata };
  stripMetadata(metadata, track);
  const key = readKey(rest, metadata, track);
  checkTexts(metadata, track);
  const wave = readWave(metadata, track);
  const marks = readMarks(metadata, (annotation, allowed) => {
    const path = jsonPointer('metadata', 'annotations', annotation);
    track('error', 'invalid_mark', path, `the value must be one of ${allowed.join(', ')}`);
  });
  if (!key) return undefined;
  const object: ValueObject = { ...rest, metadata };
  if (key.group === '' && (key.kind === 'ConfigMap' || key.kind === 'Secret')) checkData(object, key.kind, track);
  const canonical = canonicalJson(object);
  const bytes = Buffer.byteLength(canonical, 'utf8');
  if (bytes > MAX_OBJECT_BYTES) {
    track('error', 'object_too_large', '', `the object has ${bytes} bytes, the limit is ${MAX_OBJECT_BYTES}`);
  }
  return failed ? undefined : { key, object, canonical, wave, marks };
}

/** The items of a List (`kind: List` or `*List` with a sequence `items`); undefined for anything else. Items inherit nothing. */
export function listItems(value: Value): Value[] | undefined {
  if (!isMapping(value) || typeof value.kind !== 'string' || !value.kind.endsWith('List')) return undefined;
  return Array.isArray(value.items) ? value.items : undefined;
}

function stripMetadata(metadata: ValueObject, report: ReportObject): void {
  for (const field of SERVER_FIELDS) {
    const value = metadata[field];
    if (value === undefined) continue;
    delete metadata[field];
    if (value === null) continue;
    report('warning', 'server_field', jsonPointer('metadata', field), `metadata.${field} is set by the cluster and is left out`);
  }
  const owners = metadata.ownerReferences;
  if (owners === null || (Array.isArray(owners) && owners.length === 0)) delete metadata.ownerReferences;
  else if (owners !== undefined) {
    const message = 'ownerReferences name uids of one cluster and cannot be distributed';
    report('error', 'owner_references', '/metadata/ownerReferences', message);
  }
}

function readKey(rest: ValueObject, metadata: ValueObject, report: ReportObject): ObjectKey | undefined {
  const apiVersion = text(rest.apiVersion, '/apiVersion', report);
  const kind = text(rest.kind, '/kind', report);
  const name = readName(metadata, report);
  const namespace = readNamespace(metadata, report);
  if (apiVersion === undefined || kind === undefined || name === undefined || namespace === undefined) return undefined;
  const slash = apiVersion.indexOf('/');
  const group = slash === -1 ? '' : apiVersion.slice(0, slash);
  const version = apiVersion.slice(slash + 1);
  if (!VERSION.test(version) || version.length > 63 || (slash !== -1 && !isSubdomain(group))) {
    report('error', 'invalid_api_version', '/apiVersion', 'apiVersion must be a version or group/version');
    return undefined;
  }
  if (!KIND.test(kind) || kind.length > 63) {
    report('error', 'invalid_kind', '/kind', 'kind must be letters, digits and -, at most 63');
    return undefined;
  }
  const builtIn = !group.includes('.') || group.endsWith('.k8s.io');
  if (builtIn && !PATH_SEGMENT_GROUPS.has(group) && !isSubdomain(name)) {
    const message = 'the name must be a DNS subdomain: lower-case letters, digits, - and ., at most 253 characters';
    report('error', 'invalid_name', '/metadata/name', message);
    return undefined;
  }
  return { group, version, kind, namespace, name };
}

function readName(metadata: ValueObject, report: ReportObject): string | undefined {
  const name = metadata.name;
  if ((name === undefined || name === null || name === '') && metadata.generateName) {
    report(
      'error',
      'generate_name',
      '/metadata/generateName',
      'generateName without a name makes a new object at every apply; give a name',
    );
    return undefined;
  }
  const value = text(name, '/metadata/name', report);
  if (value === undefined) return undefined;
  if (value.length > 253 || value === '.' || value === '..' || /[/%\p{Cc}]/u.test(value)) {
    report(
      'error',
      'invalid_name',
      '/metadata/name',
      'the name must be a path segment: no / or %, not . or .., at most 253 characters',
    );
    return undefined;
  }
  return value;
}

/** '' when absent; takes an empty or null namespace out. */
function readNamespace(metadata: ValueObject, report: ReportObject): string | undefined {
  const namespace = metadata.namespace;
  if (namespace === undefined || namespace === null || namespace === '') {
    delete metadata.namespace;
    return '';
  }
  const value = text(namespace, '/metadata/namespace', report);
  if (value === undefined || (LABEL.test(value) && value.length <= 63)) return value;
  const message = 'the namespace must be a DNS label: lower-case letters, digits and -, at most 63 characters';
  report('error', 'invalid_namespace', '/metadata/namespace', message);
  return undefined;
}

function text(value: Value | undefined, path: string, report: ReportObject): string | undefined {
  const field = path.slice(1).replaceAll('/', '.');
  if (value === undefined || value === null || value === '') report('error', 'missing_field', path, `${field} is required`);
  else if (typeof value !== 'string') report('error', 'not_a_string', path, `${field} must be text; quote it`);
  else return value;
  return undefined;
}

function isSubdomain(name: string): boolean {
  return name.length <= 253 && SUBDOMAIN.test(name);
}

/** Labels and annotations hold texts only: `enabled: yes` is the usual mistake. */
function checkTexts(metadata: ValueObject, report: ReportObject): void {
  for (const field of ['labels', 'annotations']) {
    const map = metadata[field];
    if (map === undefined || map === null) continue;
    if (!isMapping(map)) {
      report('error', 'not_a_mapping', `/metadata/${field}`, `metadata.${field} must be a mapping`);
      continue;
    }
    let bytes = 0;
    for (const [key, value] of Object.entries(map)) {
      if (typeof value === 'string') bytes += Buffer.byteLength(key, 'utf8') + Buffer.byteLength(value, 'utf8');
      else if (value !== null)
        report('error', 'not_a_string', jsonPointer('metadata', field, key), 'the value must be text; quote it');
    }
    if (field === 'annotations' && bytes > MAX_ANNOTATION_BYTES) {
      const message = `the annotations have ${bytes} bytes, the limit is ${MAX_ANNOTATION_BYTES}`;
      report('error', 'annotations_too_large', '/metadata/annotations', message);
    }
  }
}

function readWave(metadata: ValueObject, report: ReportObject): number {
  const annotations = metadata.annotations;
  const wave = isMapping(annotations) ? annotations[WAVE_ANNOTATION] : undefined;
  if (typeof wave !== 'string') return 0;
  if (WAVE.test(wave)) return Number(wave) + 0;
  const path = jsonPointer('metadata', 'annotations', WAVE_ANNOTATION);
  report('error', 'invalid_wave', path, 'the wave must be a whole number between -999999 and 999999');
  return 0;
}

function checkData(object: ValueObject, kind: 'ConfigMap' | 'Secret', report: ReportObject): void {
  let bytes = 0;
  for (const field of ['data', 'binaryData', 'stringData']) {
    const data = object[field];
    if (!isMapping(data)) continue;
    const base64 = field === 'binaryData' || (field === 'data' && kind === 'Secret');
    for (const [key, value] of Object.entries(data)) {
      if (typeof value === 'string') bytes += base64 ? base64Bytes(value) : Buffer.byteLength(value, 'utf8');
      else if (value !== null) report('error', 'not_a_string', jsonPointer(field, key), 'the value must be text; quote it');
    }
  }
  if (bytes > MAX_DATA_BYTES) {
    report('error', 'data_too_large', '/data', `the data of the ${kind} have ${bytes} bytes, the limit is ${MAX_DATA_BYTES}`);
  }
}

function base64Bytes(value: string): number {
  const compact = value.replace(/[\s=]/g, '');
  return Math.floor((compact.length * 3) / 4);
}
