import { isMapping, type Value, type ValueObject } from './object.ts';

/** The keyword that carries the keys of a list of named items (`x-kubernetes-list-map-keys`) with their defaults. */
export const DUPLICATE_KEY = 'x-brokkr-list-keys';

/** Definitions of an OpenAPI document by name. */
export type Definitions = Readonly<Record<string, ValueObject>>;

const REFERENCE = '#/components/schemas/';

/** Definitions that are texts and numbers in JSON, whatever the document says of them. */
const LOOSE: Readonly<Record<string, ValueObject>> = {
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString': { type: ['integer', 'string', 'null'] },
  'io.k8s.apimachinery.pkg.api.resource.Quantity': { type: ['string', 'number', 'null'] },
  'io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1': {},
  'io.k8s.apimachinery.pkg.runtime.RawExtension': {},
};

/** All definitions of an OpenAPI v3 document as JSON schemas that also refuse unknown fields. */
export function convertDefinitions(definitions: Definitions): ValueObject {
  const result: ValueObject = {};
  for (const [name, schema] of Object.entries(definitions)) {
    result[name] = LOOSE[name] ?? convertSchema(schema, { definitions, resourceRoot: false, structural: false });
  }
  return result;
}

/** Context of a conversion. */
export interface ConvertContext {
  /** For the defaults of list keys. */
  readonly definitions: Definitions;
  /** Whether the schema is that of a whole resource, which always has apiVersion, kind and metadata. */
  readonly resourceRoot: boolean;
  /** Whether it is the schema in a CustomResourceDefinition: null must be allowed by it, and an object without properties has none. */
  readonly structural: boolean;
}

/**
 * One Kubernetes schema as JSON schema: objects with properties refuse others (unless
 * `x-kubernetes-preserve-unknown-fields`), null is allowed anywhere in built-in kinds (the server takes it for absent) and in custom
 * resources where it is nullable or a default fills in, int-or-string is both, and lists with map keys refuse duplicates.
 */
export function convertSchema(schema: ValueObject, context: ConvertContext): ValueObject {
  const nulls = !context.structural || schema.nullable === true || schema.default !== undefined ? ['null'] : [];
  if (schema['x-kubernetes-int-or-string'] === true || schema.format === 'int-or-string') {
    return { type: ['integer', 'string', ...nulls] };
  }
  const result: ValueObject = {};
  for (const [key, value] of Object.entries(schema)) {
    if (KEPT.has(key)) result[key] = value;
  }
  if (typeof schema.type === 'string') result.type = [schema.type, ...nulls];
  if (Array.isArray(schema.enum)) result.enum = nulls.length === 0 ? schema.enum : [...schema.enum, null];
  convertBounds(schema, result);
  const inner = { ...context, resourceRoot: false };
  convertObject(schema, result, context);
  if (isMapping(schema.items)) result.items = convertSchema(schema.items, inner);
  for (const key of ['allOf', 'anyOf', 'oneOf']) {
    const parts = schema[key];
    if (Array.isArray(parts)) result[key] = parts.map((part) => (isMapping(part) ? convertPart(part, inner) : part));
  }
  if (isMapping(schema.not)) result.not = convertPart(schema.not, inner);
  const keys = listKeys(schema, context.definitions);
  if (keys) result[DUPLICATE_KEY] = keys;
  return result;
}

/** Keywords that mean the same in both. */
const KEPT = new Set([
  '$ref',
  'required',
  'pattern',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'minProperties',
  'maxProperties',
  'multipleOf',
  'uniqueItems',
]);

/** OpenAPI 3.0 says `exclusiveMinimum: true` beside the minimum. */
function convertBounds(schema: ValueObject, result: ValueObject): void {
  for (const [flag, bound] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ] as const) {
    const limit = schema[bound];
    if (schema[flag] !== true || limit === undefined) continue;
    result[flag] = limit;
    delete result[bound];
  }
}

/** Metadata of a resource, as far as mistakes in it are known: the server takes its labels and annotations apart. */
const TEXTS: ValueObject = { type: ['object', 'null'], additionalProperties: { type: ['string', 'null'] } };
const RESOURCE: ValueObject = {
  apiVersion: { type: 'string' },
  kind: { type: 'string' },
  metadata: { type: 'object', properties: { name: { type: 'string' }, labels: TEXTS, annotations: TEXTS } },
};

function convertObject(schema: ValueObject, result: ValueObject, context: ConvertContext): void {
  const inner = { ...context, resourceRoot: false };
  const { additionalProperties } = schema;
  const closed = context.structural && schema.type === 'object' && additionalProperties === undefined;
  const properties = isMapping(schema.properties) ? schema.properties : closed ? {} : undefined;
  const open = schema['x-kubernetes-preserve-unknown-fields'] === true;
  const embedded = context.resourceRoot || schema['x-kubernetes-embedded-resource'] === true;
  if (properties) {
    const converted: ValueObject = embedded ? { ...RESOURCE } : {};
    for (const [name, property] of Object.entries(properties)) {
      if (embedded && name in converted) continue;
      converted[name] = isMapping(property) ? convertSchema(property, inner) : {};
    }
    result.properties = converted;
  }
  if (isMapping(additionalProperties)) result.additionalProperties = convertSchema(additionalProperties, inner);
  else if (properties && additionalProperties !== true && !open) result.additionalProperties = false;
}

/** A part of allOf, anyOf, oneOf or not: it restricts values and does not list fields, so others are not refused by it. */
function convertPart(part: ValueObject, context: ConvertContext): ValueObject {
  const result = convertSchema(part, context);
  if (result.additionalProperties === false) delete result.additionalProperties;
  if (isMapping(part.properties) && isMapping(result.properties)) {
    for (const [name, property] of Object.entries(part.properties)) {
      if (isMapping(property)) result.properties[name] = convertPart(property, context);
    }
  }
  if (isMapping(part.items)) result.items = convertPart(part.items, context);
  return result;
}

function listKeys(schema: ValueObject, definitions: Definitions): Value[] | undefined {
  const keys = schema['x-kubernetes-list-map-keys'];
  if (schema['x-kubernetes-list-type'] !== 'map' || !Array.isArray(keys)) return undefined;
  const properties = itemProperties(schema.items, definitions);
  return keys.map((name) => {
    const property = typeof name === 'string' ? properties[name] : undefined;
    const fallback = isMapping(property) ? property.default : undefined;
    return fallback === undefined ? { name } : { name, fallback };
  });
}

function itemProperties(items: Value | undefined, definitions: Definitions): ValueObject {
  if (!isMapping(items)) return {};
  const first = Array.isArray(items.allOf) ? items.allOf[0] : items;
  if (!isMapping(first)) return {};
  const reference = first.$ref;
  const target = typeof reference === 'string' ? definitions[reference.slice(REFERENCE.length)] : first;
  return isMapping(target?.properties) ? target.properties : {};
}
