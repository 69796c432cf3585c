import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
  ScalarType,
} from '@bufbuild/protobuf';
import { BrokkrError } from './errors.ts';
import { type WireNames, wireNamesOf } from './wire-names.ts';

/** Messages inside messages; protobuf-es stops at the same depth in its binary form. */
const MAX_DEPTH = 100;

/** Reads JSON as REST spells it into message types; what it knows of a type it works out once. */
export class InputReader {
  readonly #ignoreUnknown: boolean;
  readonly #enums = new Map<string, WireNames>();
  readonly #fields = new Map<string, ReadonlyMap<string, DescField>>();
  #depth = 0;

  /** `ignoreUnknown`: for the protocol with agents, which are older or newer than we are. */
  constructor(ignoreUnknown: boolean) {
    this.#ignoreUnknown = ignoreUnknown;
  }

  /**
   * Replaces the spellings of enums by numbers and the names of fields by those of the proto. Throws `invalid_request` for
   * fields the type does not have, for unknown enum values and for endless nesting, naming the place. `path` is the place of `json` in the
   * request, '' for its top.
   */
  normalize(desc: DescMessage, json: JsonValue, path: string): JsonValue {
    if (json === null || desc.typeName.startsWith('google.protobuf.')) return json;
    if (typeof json !== 'object' || Array.isArray(json)) {
      throw new BrokkrError('invalid_request', `${path || 'the body'} must be a JSON object`, { details: { field: path } });
    }
    const known = this.#fieldsOf(desc);
    const result: JsonObject = {};
    for (const [name, value] of Object.entries(json)) {
      const field = known.get(name);
      const place = path ? `${path}.${name}` : name;
      if (field) result[field.name] = this.normalizeField(field, value, place);
      else if (!this.#ignoreUnknown) throw unknownField(place, desc);
    }
    return result;
  }

  /** The same for one field's value, a bare JSON string for example. */
  normalizeField(field: DescField, json: JsonValue, path: string): JsonValue {
    if (json === null) return null;
    if (field.fieldKind === 'list' && Array.isArray(json))
      return json.map((item, at) => this.#item(field, item, `${path}[${at}]`));
    if (field.fieldKind === 'map' && typeof json === 'object' && !Array.isArray(json)) {
      return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, this.#item(field, item, `${path}.${key}`)]));
    }
    return field.fieldKind === 'list' || field.fieldKind === 'map' ? json : this.#item(field, json, path);
  }

  /** The value of a query or path parameter as proto JSON. `values` has one item unless the field is repeated. */
  parameter(field: DescField, values: readonly string[], name: string): JsonValue {
    if (field.fieldKind === 'list' && field.listKind !== 'message')
      return values.map((value) => this.#parameter(field, value, name));
    if (values.length > 1) {
      throw new BrokkrError('invalid_request', `the parameter ${name} is given ${values.length} times, once is allowed`);
    }
    return this.#parameter(field, values[0] ?? '', name);
  }

  /** The message of normalized JSON. Throws `invalid_request`. */
  message<D extends DescMessage>(desc: D, json: JsonObject): MessageShape<D> {
    try {
      return fromJson(desc, json, { ignoreUnknownFields: this.#ignoreUnknown });
    } catch (error) {
      throw new BrokkrError('invalid_request', messageOf(error, desc), { cause: error });
    }
  }

  #item(field: DescField, item: JsonValue, path: string): JsonValue {
    if (field.message) return this.#nested(field.message, item, path);
    return field.enum ? this.#enumNumber(field.enum, item, path) : item;
  }

  #nested(desc: DescMessage, json: JsonValue, path: string): JsonValue {
    if (this.#depth === MAX_DEPTH) {
      throw new BrokkrError('invalid_request', `the body is nested deeper than ${MAX_DEPTH} levels`);
    }
    this.#depth++;
    try {
      return this.normalize(desc, json, path);
    } finally {
      this.#depth--;
    }
  }

  #enumNumber(desc: DescEnum, json: JsonValue, path: string): JsonValue {
    if (json === null) return null;
    const names = this.#enums.get(desc.typeName) ?? wireNamesOf(desc);
    this.#enums.set(desc.typeName, names);
    const number = typeof json === 'string' ? names.byName.get(json) : undefined;
    if (number !== undefined) return number;
    throw new BrokkrError('invalid_request', `${path} is ${JSON.stringify(json)}, allowed are ${names.allowed}`, {
      details: { field: path },
    });
  }

  #parameter(field: DescField, text: string, name: string): JsonValue {
    if (field.enum) return this.#enumNumber(field.enum, text, name);
    if (!field.message) return scalarParameter(field.scalar, text, name);
    if (field.message.typeName === 'google.protobuf.Timestamp') return text;
    throw new BrokkrError('invalid_request', `${name} cannot be given as a parameter`);
  }

  #fieldsOf(desc: DescMessage): ReadonlyMap<string, DescField> {
    const known = this.#fields.get(desc.typeName);
    if (known) return known;
    const byName = new Map(desc.fields.flatMap((field) => [[field.jsonName, field] as const, [field.name, field] as const]));
    this.#fields.set(desc.typeName, byName);
    return byName;
  }
}

function scalarParameter(type: ScalarType | undefined, text: string, name: string): JsonValue {
  if (type === ScalarType.STRING || type === ScalarType.BYTES) return text;
  if (type === ScalarType.BOOL) {
    if (text === 'true' || text === '1' || text === '') return true;
    if (text === 'false' || text === '0') return false;
  } else if (/^-?\d+(\.\d+)?$/.test(text)) {
    return text;
  }
  const expected = type === ScalarType.BOOL ? 'true or false' : 'a number';
  throw new BrokkrError('invalid_request', `${name} is ${JSON.stringify(text)}, expected ${expected}`, {
    details: { field: name },
  });
}

function unknownField(path: string, desc: DescMessage): BrokkrError {
  return new BrokkrError(
    'invalid_request',
    `unknown field ${path}, known are ${desc.fields.map((field) => field.name).join(', ')}`,
    {
      details: { field: path },
    },
  );
}

/** The message of protobuf-es names types of the API: shortened to the field, `stack_id: expected string, got 5`. */
function messageOf(error: unknown, desc: DescMessage): string {
  const text = error instanceof Error ? error.message : String(error);
  return text
    .replace(/^cannot decode (?:field )?/, '')
    .replaceAll(`${desc.typeName}.`, '')
    .replaceAll('brokkr.v1.', '')
    .replace(' from JSON', '');
}
