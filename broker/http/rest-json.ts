import { type DescEnum, type DescField, type DescMessage, type JsonValue, type Message, ScalarType, toJson } from '@bufbuild/protobuf';
import { base64Encode } from '@bufbuild/protobuf/wire';
import { wireNamesOf } from './wire-names.ts';

/** Prints one message type as REST JSON. */
export type Printer = (message: Message) => JsonValue;

/** Printers of message types, each compiled once. */
export interface Printers {
  /**
   * The printer of a type: snake_case names, unset optional fields and messages null, 64-bit integers as numbers while
   * exactly representable, RFC 3339 times with Z, enums as `wireNamesOf` spells them.
   */
  of(desc: DescMessage): Printer;
  /** The printer of the values of one field. */
  ofField(field: DescField): (value: unknown) => JsonValue;
}

/** Fields that are left out when empty instead of being null; existing clients rely on it. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  'brokkr.v1.AuditLog.ip_address',
  'brokkr.v1.AuditLog.user_agent',
  'brokkr.v1.HealthSummary.resources',
  'brokkr.v1.ResourceHealth.message',
]);

type FieldPrinter = (from: Record<string, unknown>, to: Record<string, JsonValue>) => void;

/** An empty cache of printers. */
export function createPrinters(): Printers {
  const messages = new Map<string, Printer>();
  const enums = new Map<string, (value: number) => JsonValue>();

  const printers: Printers = {
    of(desc) {
      const known = messages.get(desc.typeName);
      if (known) return known;
      if (desc.typeName.startsWith('google.protobuf.')) {
        const wellKnown: Printer = (message) => toJson(desc, message);
        messages.set(desc.typeName, wellKnown);
        return wellKnown;
      }
      const fields: FieldPrinter[] = [];
      const printer: Printer = (message) => {
        const json: Record<string, JsonValue> = {};
        for (const print of fields) print(message as unknown as Record<string, unknown>, json);
        return json;
      };
      messages.set(desc.typeName, printer); // before its fields: types may contain themselves
      for (const field of desc.fields) fields.push(fieldPrinter(field));
      return printer;
    },
    ofField: valuePrinter,
  };

  function fieldPrinter(field: DescField): FieldPrinter {
    const value = valuePrinter(field);
    const { name, localName } = field;
    const oneof = field.oneof?.localName;
    if (oneof !== undefined) {
      return (from, to) => {
        const chosen = from[oneof] as { readonly case?: string; readonly value?: unknown };
        if (chosen.case === localName) to[name] = value(chosen.value);
      };
    }
    const leftOut = LEFT_OUT.has(`${field.parent.typeName}.${name}`);
    return (from, to) => {
      const content = from[localName];
      if (leftOut && (content === undefined || (Array.isArray(content) && content.length === 0))) return;
      to[name] = content === undefined ? null : value(content);
    };
  }

  function valuePrinter(field: DescField): (value: unknown) => JsonValue {
    switch (field.fieldKind) {
      case 'list': {
        const item = itemPrinter(field.listKind === 'scalar' ? field.scalar : field.listKind === 'enum' ? field.enum : field.message);
        return (value) => (value as unknown[]).map(item);
      }
      case 'map': {
        const item = itemPrinter(field.mapKind === 'scalar' ? field.scalar : field.mapKind === 'enum' ? field.enum : field.message);
        return (value) => Object.fromEntries(Object.entries(value as object).map(([key, content]) => [key, item(content)]));
      }
      case 'scalar':
        return itemPrinter(field.scalar);
      case 'enum':
        return itemPrinter(field.enum);
      case 'message':
        return itemPrinter(field.message);
    }
  }

  function itemPrinter(type: ScalarType | DescEnum | DescMessage): (value: unknown) => JsonValue {
    if (typeof type === 'number') return scalarPrinter(type);
    if (type.kind === 'message') {
      let printer: Printer | undefined;
      return (value) => {
        printer ??= printers.of(type);
        return printer(value as Message);
      };
    }
    return enumPrinter(type) as (value: unknown) => JsonValue;
  }

  function enumPrinter(desc: DescEnum): (value: number) => JsonValue {
    const known = enums.get(desc.typeName);
    if (known) return known;
    const { byNumber } = wireNamesOf(desc);
    const printer = (value: number) => byNumber.get(value) ?? (value === 0 ? null : value);
    enums.set(desc.typeName, printer);
    return printer;
  }

  return printers;
}

function scalarPrinter(type: ScalarType): (value: unknown) => JsonValue {
  switch (type) {
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : String(value));
    case ScalarType.BYTES:
      return (value) => base64Encode(value as Uint8Array);
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return (value) => (Number.isFinite(value) ? (value as number) : String(value));
    default:
      return (value) => value as JsonValue;
  }
}
