import type { DescField, DescMessage, DescMethod, Message } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import { invalidName } from '../http/rpc-errors.ts';

/**
 * Throws when a string of the request has a null character: PostgreSQL stores none, so such a text could only fail later
 * and less clearly. Names field, line and column, under the error name of the route.
 */
export function assertStorable(method: DescMethod, request: Message): void {
  const found = findNull(method.input, request as unknown as Fields, '');
  if (!found) return;
  const message = `line ${found.line}, column ${found.column}: null characters cannot be stored`;
  throw new BrokkrError(invalidName(method), `${found.field}: ${message}`, {
    details: { violations: [{ field: found.field, message }] },
  });
}

type Fields = Readonly<Record<string, unknown>>;

interface Place {
  readonly field: string;
  readonly line: number;
  readonly column: number;
}

function findNull(desc: DescMessage, message: Fields, path: string): Place | undefined {
  for (const field of desc.fields) {
    const found = inField(field, contentOf(field, message), `${path}${field.name}`);
    if (found) return found;
  }
  return undefined;
}

function contentOf(field: DescField, message: Fields): unknown {
  if (!field.oneof) return message[field.localName];
  const chosen = message[field.oneof.localName] as { readonly case?: string; readonly value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}

function inField(field: DescField, value: unknown, path: string): Place | undefined {
  if (value === undefined) return undefined;
  switch (field.fieldKind) {
    case 'list':
      return first(value as unknown[], (item, index) => inValue(field.message, item, `${path}[${index}]`));
    case 'map':
      return first(
        Object.entries(value as object),
        ([key, item]) => inText(key, path) ?? inValue(field.message, item, `${path}.${key}`),
      );
    default:
      return inValue(field.message, value, path);
  }
}

function inValue(desc: DescMessage | undefined, value: unknown, path: string): Place | undefined {
  if (desc) return findNull(desc, value as Fields, `${path}.`);
  return typeof value === 'string' ? inText(value, path) : undefined;
}

function inText(text: string, field: string): Place | undefined {
  const at = text.indexOf('\0');
  if (at < 0) return undefined;
  const before = text.slice(0, at);
  return { field, line: before.split('\n').length, column: at - before.lastIndexOf('\n') };
}

function first<T>(items: readonly T[], look: (item: T, index: number) => Place | undefined): Place | undefined {
  for (const [index, item] of items.entries()) {
    const found = look(item, index);
    if (found) return found;
  }
  return undefined;
}
