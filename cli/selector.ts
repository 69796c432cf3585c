import { readFile } from 'node:fs/promises';
import { create, type DescEnum, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { load } from 'js-yaml';
import { errorText } from '#lib/errors.ts';
import { type Selector, SelectorOperatorSchema, SelectorSchema, SelectorSourceSchema } from '#proto/brokkr/v1/targeting_pb.js';
import { CliError, usageError } from './failure.ts';

const EXAMPLE = 'for example: any: [{term: {source: label, key: prod, operator: exists}}]';
/** As deep as the API allows, and a little more: the broker says what is wrong then. */
const MAX_DEPTH = 10;

/** The selector in a YAML or JSON file, spelled as in REST; `none` takes a stack's selector away. */
export async function readSelector(path: string): Promise<Selector> {
  if (path === 'none') return create(SelectorSchema, { noAgent: true });
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new CliError('file_not_found', `${path}: ${errorText(error)}`, { cause: error });
  });
  try {
    return fromJson(SelectorSchema, inProtoJson(load(text) as JsonValue, 0));
  } catch (error) {
    throw usageError(`${path} is not a selector: ${errorText(error).replace('cannot decode ', '')}`, EXAMPLE);
  }
}

/** The enums of terms by the names the proto gives them. */
function inProtoJson(json: JsonValue, depth: number): JsonValue {
  if (!isObject(json) || depth > MAX_DEPTH) return json;
  const groups = ['all', 'any'].flatMap((name) => {
    const parts = json[name];
    return Array.isArray(parts) ? [[name, parts.map((part) => inProtoJson(part, depth + 1))]] : [];
  });
  const { term } = json;
  const named = isObject(term) && {
    term: {
      ...term,
      source: enumName(SelectorSourceSchema, term.source),
      operator: enumName(SelectorOperatorSchema, term.operator),
    },
  };
  return { ...json, ...Object.fromEntries(groups), ...named } as JsonValue;
}

function enumName(desc: DescEnum, word: JsonValue | undefined): JsonValue {
  const names = desc.values.slice(1).map(({ name }) => name.slice(desc.sharedPrefix?.length).toLowerCase());
  const at = names.indexOf(String(word));
  if (at >= 0) return desc.values[at + 1]?.name ?? '';
  throw new Error(`${JSON.stringify(word ?? null)} is not one of ${names.join(', ')}`);
}

function isObject(json: JsonValue | undefined): json is { [key: string]: JsonValue } {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}
