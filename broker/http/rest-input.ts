import { type DescField, type DescMessage, fromJson, type JsonObject, type JsonValue, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import { type WireNames, wireNamesOf } from './wire-names.ts';

/** Reads REST JSON into message types; what it knows of a type it works out once. */
export interface InputReader {
  /**
   * Replaces the spellings of enums by those of proto JSON. Throws `invalid_request` for fields the type does not have
   * and for unknown enum values, naming the place. `path` is the place of `json` in the request, '' for its top.
   */
  normalize(desc: DescMessage, json: JsonValue, path: string): JsonValue;
  /** The same for one field's value, a bare JSON string for example. */
  normalizeField(field: DescField, json: JsonValue, path: string): JsonValue;
  /** The value of a query or path parameter as proto JSON. `values` has one item unless the field is repeated. */
  parameter(field: DescField, values: readonly string[], name: string): JsonValue;
  /** The message of normalized JSON. `ignoreUnknown`: for the protocol with agents, which are older or newer than we are. */
  message<D extends DescMessage>(desc: D, json: JsonObject, ignoreUnknown: boolean): MessageShape<D>;
}

/** A reader that ignores fields it does not know where `ignoresUnknown` says so. */
export function createInputReader(ignoresUnknown: (desc: DescMessage) => boolean): InputReader {
  const enums = new Map<string, WireNames>();
  const fields = new Map<string, ReadonlyMap<string, DescField>>();

  const reader: InputReader = {
    normalize(desc, json, path) {
      if (json === null || desc.typeName.startsWith('google.protobuf.')) return json;
      if (typeof json !== 'object' || Array.isArray(json)) {
        throw new BrokkrError('invalid_request', `${path || 'the body'} must be a JSON object`, { details: { field: path } });
      }
      const known = fieldsOf(desc);
      const result: JsonObject = {};
      for (const [name, value] of Object.entries(json)) {
        const field = known.get(name);
        const place = path ? `${path}.${name}` : name;
        if (field) result[field.name] = reader.normalizeField(field, value, place);
        else if (!ignoresUnknown(desc)) throw unknownField(place, desc);
      }
      return result;
    },

    normalizeField(field, json, path) {
      if (json === null) return null;
      switch (field.fieldKind) {
        case 'scalar':
          return json;
        case 'enum':
          return enumName(field, json, path);
        case 'message':
          return reader.normalize(field.message, json, path);
        case 'list':
          if (field.listKind === 'scalar' || !Array.isArray(json)) return json;
          return json.map((item, at) => normalizeItem(field, item, `${path}[${at}]`));
        case 'map':
          if (field.mapKind === 'scalar' || typeof json !== 'object' || Array.isArray(json)) return json;
          return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, normalizeItem(field, item, `${path}.${key}`)]));
      }
    },

    parameter(field, values, name) {
      if (field.fieldKind === 'list' && field.listKind !== 'message') return values.map((value) => parameterValue(field, value, name));
      if (values.length > 1) throw new BrokkrError('invalid_request', `the parameter ${name} is given ${values.length} times, once is allowed`);
      return parameterValue(field, values[0] ?? '', name);
    },

    message(desc, json, ignoreUnknown) {
      try {
        return fromJson(desc, json, { ignoreUnknownFields: ignoreUnknown });
      } catch (error) {
        throw new BrokkrError('invalid_request', messageOf(error, desc), { cause: error });
      }
    },
  };

  function normalizeItem(field: DescField, item: JsonValue, path: string): JsonValue {
    if (field.message) return reader.normalize(field.message, item, path);
    return field.enum ? enumName(field, item, path) : item;
  }

  function enumName(field: DescField, json: JsonValue, path: string): JsonValue {
    const desc = field.enum;
    if (!desc || json === null) return json;
    let names = enums.get(desc.typeName);
    if (!names) enums.set(desc.typeName, (names = wireNamesOf(desc)));
    const number = typeof json === 'string' ? names.byName.get(json) : undefined;
    if (number === undefined) {
      throw new BrokkrError('invalid_request', `${path} is ${JSON.stringify(json)}, allowed are ${names.allowed}`, { details: { field: path } });
    }
    return number;
  }

  function parameterValue(field: DescField, text: string, name: string): JsonValue {
    if (field.enum) return enumName(field, text, name);
    if (field.message) {
      if (field.message.typeName === 'google.protobuf.Timestamp') return text;
      throw new BrokkrError('invalid_request', `${name} cannot be given as a parameter`);
    }
    switch (field.scalar) {
      case ScalarType.BOOL:
        if (text === 'true' || text === '1' || text === '') return true;
        if (text === 'false' || text === '0') return false;
        throw new BrokkrError('invalid_request', `${name} is ${JSON.stringify(text)}, allowed are true and false`, { details: { field: name } });
      case ScalarType.STRING:
      case ScalarType.BYTES:
        return text;
      default:
        if (!/^-?\d+(\.\d+)?$/.test(text)) {
          throw new BrokkrError('invalid_request', `${name} is ${JSON.stringify(text)}, expected a number`, { details: { field: name } });
        }
        return text;
    }
  }

  function fieldsOf(desc: DescMessage): ReadonlyMap<string, DescField> {
    const known = fields.get(desc.typeName);
    if (known) return known;
    const byName = new Map(desc.fields.flatMap((field) => [[field.jsonName, field] as const, [field.name, field] as const]));
    fields.set(desc.typeName, byName);
    return byName;
  }

  return reader;
}

function unknownField(path: string, desc: DescMessage): BrokkrError {
  return new BrokkrError('invalid_request', `unknown field ${path}, known are ${desc.fields.map((field) => field.name).join(', ')}`, {
    details: { field: path },
  });
}

/** The message of protobuf-es names types of the API: shortened to the field, `stack_id: expected string, got 5`. */
function messageOf(error: unknown, desc: DescMessage): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^cannot decode (?:field )?/, '').replaceAll(`${desc.typeName}.`, '').replaceAll('brokkr.v1.', '').replace(' from JSON', '');
}
