import { isMapping, type Value } from '#lib/object.ts';
import { jsonPointer } from '#lib/yaml-problems.ts';

/** Takes a problem of an object: a JSON pointer into it and what is wrong there. */
export type ReportField = (path: string, message: string) => void;

/**
 * What the API server's decoder takes for a field. `fields` refuses every other field, as `fieldValidation=Strict` does; `some` reads the
 * named fields and leaves the rest alone.
 */
export type Shape =
  | 'text'
  | 'int32'
  | 'int32 or text'
  | 'boolean'
  | 'anything'
  | { readonly mapOf: Shape }
  | { readonly listOf: Shape }
  | { readonly fields: Readonly<Record<string, Shape>> }
  | { readonly some: Readonly<Record<string, Shape>> };

/**
 * The value as the decoder would hand it on: absent where null, null items of lists and maps as empty values. Reports what the decoder
 * would refuse; the result is then of no use.
 */
export function decode(value: Value | undefined, shape: Shape, path: string, report: ReportField): unknown {
  if (value === undefined || value === null || shape === 'anything') return value ?? undefined;
  if (typeof shape === 'string') return decodeScalar(value, shape, path, report);
  if ('listOf' in shape) {
    if (!Array.isArray(value)) return report(path, 'must be a list');
    return value.map((item, index) => decode(item, shape.listOf, `${path}/${index}`, report) ?? emptyOf(shape.listOf));
  }
  if (!isMapping(value)) return report(path, 'must be a mapping');
  const result: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) {
    const place = path + jsonPointer(key);
    const inner = 'mapOf' in shape ? shape.mapOf : fieldShape(shape, key);
    if (inner === undefined) {
      if ('fields' in shape) report(place, `unknown field, known are ${Object.keys(shape.fields).join(', ')}`);
      continue;
    }
    const decoded = decode(field, inner, place, report) ?? ('mapOf' in shape ? emptyOf(inner) : undefined);
    if (decoded !== undefined) result[key] = decoded;
  }
  return result;
}

function fieldShape(shape: Exclude<Shape, string | { mapOf: Shape } | { listOf: Shape }>, key: string): Shape | undefined {
  const fields = 'fields' in shape ? shape.fields : shape.some;
  return Object.hasOwn(fields, key) ? fields[key] : undefined;
}

function emptyOf(shape: Shape): unknown {
  if (typeof shape !== 'string') return 'listOf' in shape ? [] : {};
  return shape === 'text' ? '' : shape === 'boolean' ? false : shape === 'anything' ? undefined : 0;
}

function decodeScalar(value: Value, shape: Exclude<Shape, object>, path: string, report: ReportField): unknown {
  const isInt32 = typeof value === 'number' && Number.isInteger(value) && Math.abs(value + 0.5) < 2 ** 31;
  if (shape === 'boolean' ? typeof value === 'boolean' : shape === 'text' ? typeof value === 'string' : isInt32) return value;
  if (shape === 'int32 or text' && typeof value === 'string') return value;
  const expected = {
    text: 'text; quote it',
    int32: 'a whole number of 32 bits',
    'int32 or text': 'a whole number of 32 bits or text',
    boolean: 'true or false',
    anything: 'anything',
  };
  return report(path, `must be ${expected[shape]}`);
}
