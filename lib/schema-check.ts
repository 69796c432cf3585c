import { readFileSync } from 'node:fs';
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { isMapping, type ObjectKey, type Value, type ValueObject } from './object.ts';
import { convertDefinitions, convertSchema, DUPLICATE_KEY } from './schema-convert.ts';
import { jsonPointer } from './yaml-problems.ts';

/** One OpenAPI v3 document of a server (`/openapi/v3/apis/<group>/<version>`), on disk. */
export interface SchemaFile {
  /** Content hash of the document, which names it for ever. */
  readonly hash: string;
  readonly path: string;
}

/** Takes one violation: `unknown_field`, `duplicate_list_key` or `schema`. Messages never hold a value. */
export type ReportSchema = (rule: string, path: string, message: string) => void;

type Kind = Pick<ObjectKey, 'group' | 'version' | 'kind'>;

interface CompiledFile {
  readonly ajv: Ajv;
  /** Definition by `group/version/kind`. */
  readonly definitions: ReadonlyMap<string, string>;
  readonly validators: Map<string, ValidateFunction>;
}

/** Documents kept compiled in one worker; the oldest goes first. */
const MAX_CACHED_FILES = 64;

/** Violations reported of one object. */
const MAX_VIOLATIONS = 20;

/** Compiled documents of this thread, by content hash, oldest first. Content-addressed, so it never goes stale. */
const cache = new Map<string, CompiledFile>();

/**
 * The schemas of one cluster, for finding mistakes before anything is sent: unknown fields, wrong types, missing fields,
 * values outside an enumeration, and duplicate keys in lists of named items. A kind without a schema passes. The server's
 * own judgement (CEL rules, defaults, admission) stays with its dry-run.
 */
export class SchemaSet {
  readonly #files: Readonly<Record<string, SchemaFile>>;
  readonly #learned = new Map<string, ValidateFunction>();

  constructor(files: Readonly<Record<string, SchemaFile>>) {
    this.#files = files;
  }

  /** Takes the schema of a custom resource (`openAPIV3Schema`); it wins over the server's. One that does not compile is ignored. */
  learn(kind: Kind, schema: ValueObject): void {
    try {
      const root = convertSchema(schema, { definitions: {}, resourceRoot: true, structural: true });
      this.#learned.set(kindKey(kind), createAjv().compile(root));
    } catch {
      // The server judges the CRD itself; without a schema its resources are judged by the server alone.
    }
  }

  /** Reports what in `object` contradicts the schema of its kind. */
  check(kind: Kind, object: ValueObject, report: ReportSchema): void {
    const validate = this.#learned.get(kindKey(kind)) ?? this.#fromServer(kind);
    if (!validate || validate(plain(object))) return;
    const seen = new Set<string>();
    for (const error of validate.errors ?? []) {
      const { rule, path, message } = describe(error);
      const id = `${rule} ${path} ${message}`;
      if (seen.has(id)) continue;
      seen.add(id);
      if (seen.size > MAX_VIOLATIONS) break;
      report(rule, path, message);
    }
  }

  #fromServer(kind: Kind): ValidateFunction | undefined {
    const file = this.#files[kind.group === '' ? kind.version : `${kind.group}/${kind.version}`];
    if (!file) return undefined;
    const compiled = load(file);
    const key = kindKey(kind);
    const known = compiled.validators.get(key);
    if (known) return known;
    const definition = compiled.definitions.get(key);
    if (definition === undefined) return undefined;
    const validate = compiled.ajv.compile({ $ref: `openapi#/components/schemas/${definition}` });
    compiled.validators.set(key, validate);
    return validate;
  }
}

function load({ hash, path }: SchemaFile): CompiledFile {
  const known = cache.get(hash);
  if (known) return known;
  const document = JSON.parse(readFileSync(path, 'utf8')) as { components?: { schemas?: Record<string, ValueObject> } };
  const schemas = document.components?.schemas ?? {};
  const definitions = new Map<string, string>();
  for (const [name, schema] of Object.entries(schemas)) {
    const kinds = schema['x-kubernetes-group-version-kind'];
    if (!Array.isArray(kinds)) continue;
    for (const kind of kinds) {
      if (isMapping(kind)) definitions.set(`${kind.group}/${kind.version}/${kind.kind}`, name);
    }
  }
  const ajv = createAjv();
  ajv.addSchema({ $id: 'openapi', components: { schemas: convertDefinitions(schemas) } });
  const compiled = { ajv, definitions, validators: new Map<string, ValidateFunction>() };
  const oldest = cache.keys().next().value;
  if (cache.size >= MAX_CACHED_FILES && oldest !== undefined) cache.delete(oldest);
  cache.set(hash, compiled);
  return compiled;
}

function createAjv(): Ajv {
  const ajv = new Ajv({
    strict: false,
    allErrors: true,
    validateFormats: false,
    validateSchema: false,
    logger: false,
    addUsedSchema: false,
  });
  ajv.addKeyword({ keyword: DUPLICATE_KEY, type: 'array', errors: 'full', compile: compileListKeys });
  return ajv;
}

/** The keys of a list of named items, with the defaults the server would fill in. */
type ListKeys = readonly { readonly name: string; readonly fallback?: Value }[];

function compileListKeys(keys: ListKeys) {
  const validate = (items: Value[]): boolean => {
    const seen = new Map<string, number>();
    const errors: Partial<ErrorObject>[] = [];
    for (const [index, item] of items.entries()) {
      if (!isMapping(item)) continue;
      const id = JSON.stringify(keys.map(({ name, fallback }) => item[name] ?? fallback ?? null));
      const first = seen.get(id);
      if (first === undefined) seen.set(id, index);
      else errors.push({ keyword: DUPLICATE_KEY, params: { index, first }, message: keys.map(({ name }) => name).join(', ') });
    }
    (validate as { errors?: Partial<ErrorObject>[] }).errors = errors;
    return errors.length === 0;
  };
  return validate;
}

function describe(error: ErrorObject): { rule: string; path: string; message: string } {
  const { keyword, instancePath, params } = error;
  if (keyword === 'additionalProperties') {
    const path = `${instancePath}${jsonPointer(String(params.additionalProperty))}`;
    return { rule: 'unknown_field', path, message: 'the cluster does not know this field' };
  }
  if (keyword === DUPLICATE_KEY) {
    const path = `${instancePath}${jsonPointer(Number(params.index))}`;
    return {
      rule: 'duplicate_list_key',
      path,
      message: `the item has the same ${error.message} as item ${params.first} of the list`,
    };
  }
  return { rule: 'schema', path: instancePath, message: error.message?.replace(',null', '') ?? 'does not fit the schema' };
}

/** A copy with bigints as numbers, which is all that the types need. */
function plain(value: Value): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (!isMapping(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

function kindKey({ group, version, kind }: Kind): string {
  return `${group}/${version}/${kind}`;
}
