import { readFile } from 'node:fs/promises';
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { InputReader } from '#lib/rest-input.ts';
import { type ApplyOptions, ApplyOptionsSchema } from '#proto/brokkr/v1/content_pb.js';
import { CliError, usageError } from './failure.ts';

/** Where the options of a stack are given: a file, and single ones that win over it. */
export interface OptionFlags {
  /** A YAML or JSON file with a mapping of options. */
  readonly options?: string;
  /** By name; values as in that file. */
  readonly option?: Readonly<Record<string, string>>;
  /** The option `confirm_seconds`, which is asked for most. */
  readonly confirmSeconds?: number;
}

/** Options and the names that were given. */
export interface GivenOptions {
  readonly options: ApplyOptions;
  readonly names: readonly string[];
}

/**
 * The options that flags give; undefined when they give none. Throws a usage error that names the place and what is
 * allowed there.
 */
export async function readOptions({
  options: file,
  confirmSeconds,
  option = {},
}: OptionFlags): Promise<GivenOptions | undefined> {
  if (file === undefined && confirmSeconds === undefined && Object.keys(option).length === 0) return undefined;
  const { load } = await import('js-yaml');
  const value = (text: string, from: string): JsonValue => {
    try {
      return (load(text) ?? null) as JsonValue;
    } catch (error) {
      throw usageError(`${from} cannot be read: ${errorText(error)}`);
    }
  };
  const given: JsonObject = file === undefined ? {} : mapping(value(await readText(file), file), file);
  for (const [name, text] of Object.entries(option)) given[name] = value(text, `--option ${name}`);
  if (confirmSeconds !== undefined) given.confirm_seconds = confirmSeconds;
  const reader = new InputReader(false);
  try {
    const json = reader.normalize(ApplyOptionsSchema, given, 'options') as JsonObject;
    return { options: reader.message(ApplyOptionsSchema, json), names: Object.keys(json) };
  } catch (error) {
    if (error instanceof BrokkrError) throw usageError(error.message, 'docs/reference/options.md lists them all');
    throw error;
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new CliError('file_not_found', `${path} cannot be read: ${errorText(error)}`, { cause: error });
  }
}

function mapping(value: JsonValue, path: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw usageError(`${path} is not a mapping of options`);
}
