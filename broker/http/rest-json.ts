import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import { base64Encode } from '@bufbuild/protobuf/wire';
import { wireNamesOf } from '#lib/wire-names.ts';

/** Prints one message type as REST JSON. */
export type Printer = (message: Message) => JsonValue;

/** Fields that are left out when empty instead of being null; existing clients rely on it. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  'brokkr.v1.AuditLog.ip_address',
  'brokkr.v1.AuditLog.user_agent',
  'brokkr.v1.HealthSummary.resources',
  'brokkr.v1.ResourceHealth.message',
]);

type FieldPrinter = (from: Record<string, unknown>, to: Record<string, JsonValue>) => void;

/**
 * Printers of message types, each compiled once: snake_case names, unset optional fields and messages null, 64-bit
 * integers as numbers while exactly representable, RFC 3339 times with Z, enums as `wireNamesOf` spells them.
 */
export class Printers {
  readonly #messages = new Map<string, Printer>();

  /** The printer of a type. */
  of(desc: DescMessage): Printer {
    const known = this.#messages.get(desc.typeName);
    if (known) return known;
    const fields: FieldPrinter[] = [];
    const ours: Printer = (message) => {
      const json: Record<string, JsonValue> = {};
      for (const print of fields) print(message as unknown as Record<string, unknown>, json);
      return json;
    };
    const printer = desc.typeName.startsWith('google.protobuf.') ? (message: Message) => toJson(desc, message) : ours;
    this.#messages.set(desc.typeName, printer); // before its fields: types may contain themselves
    if (printer === ours) for (const field of desc.fields) fields.push(this.#fieldPrinter(field));
    return printer;
  }

  /** The printer of the values of one field. */
  ofField(field: DescField): (value: unknown) => JsonValue {
    const item = this.#itemPrinter(field.message ?? field.enum ?? (field.scalar as ScalarType));
    switch (field.fieldKind) {
      case 'list':
        return (value) => (value as unknown[]).map(item);
      case 'map':
        return (value) => Object.fromEntries(Object.entries(value as object).map(([key, content]) => [key, item(content)]));
      case 'scalar':
      case 'enum':
      case 'message':
        return item;
    }
  }

  #fieldPrinter(field: DescField): FieldPrinter {
    const value = this.ofField(field);
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

  #itemPrinter(type: ScalarType | DescEnum | DescMessage): (value: unknown) => JsonValue {
    if (typeof type === 'number') return scalarPrinter(type);
    if (type.kind === 'message') return (value) => this.of(type)(value as Message);
    const { byNumber } = wireNamesOf(type);
    return (value) => byNumber.get(value as number) ?? (value === 0 ? null : (value as number));
  }
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
