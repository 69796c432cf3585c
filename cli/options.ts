import { type Command, InvalidArgumentError, Option } from 'commander';
import { readValue } from '#lib/setting.ts';

/** Options whose value is a file or a folder; completion offers names of files for them. */
export const FILE_OPTIONS: ReadonlySet<string> = new Set([
  '--filename',
  '--selector',
  '--pak-file',
  '--ca-file',
  '--kubeconfig',
  '--data-dir',
  '--options',
  '--facts',
]);

/** The API's limit of `confirm_seconds`. */
const MAX_CONFIRM_SECONDS = 600;

/** `-o`: for people, or what the REST API answers. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'for people, or as the REST API answers')
    .choices(['table', 'json', 'yaml'])
    .default('table');
}

/** An option that holds a duration in milliseconds: `500ms`, `10s`, `5m`, `1h`, `7d`. */
export function durationOption(flags: string, description: string, fallback?: string): Option {
  const option = new Option(flags, description).argParser((text) => durationMs(text));
  return fallback === undefined ? option : option.default(durationMs(fallback), fallback);
}

/** `--limit`. */
export function limitOption(fallback: number): Option {
  return new Option('--limit <count>', 'the most entries to show').argParser(wholeNumber).default(fallback);
}

/** `-f` and `-R`, for `apply` and `diff`. */
export function addFileOptions(command: Command): Command {
  return command
    .requiredOption(
      '-f, --filename <path>',
      'a file, a folder (its .yaml, .yml and .json files, by name) or - for stdin',
      collect,
    )
    .option('-R, --recursive', 'read folders with all that is below');
}

/** Collects a repeatable option into a list. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** Collects `key=value` of a repeatable option into a map. */
export function collectPairs(
  text: string,
  before: Readonly<Record<string, string>> | undefined,
): Readonly<Record<string, string>> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('it is not of the form key=value');
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}

/** Parses a positive whole number. */
export function wholeNumber(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < 1 || !Number.isSafeInteger(number))
    throw new InvalidArgumentError('it is not a number from 1');
  return number;
}

/** `--confirm-seconds`. */
export function confirmOption(): Option {
  const parse = (text: string) => {
    const number = Number(text);
    if (!/^\d+$/.test(text) || number > MAX_CONFIRM_SECONDS)
      throw new InvalidArgumentError(`it is not a number from 0 to ${MAX_CONFIRM_SECONDS}`);
    return number;
  };
  const meaning = 'time an agent has to prove that the content does not cut it off, else it goes back; 0: none is asked for';
  return new Option('--confirm-seconds <seconds>', meaning).argParser(parse);
}

/** Parses a port; 0 lets the system choose. */
export function portNumber(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > 65_535) throw new InvalidArgumentError('it is not a port from 0 to 65535');
  return number;
}

function durationMs(text: string): number {
  try {
    return readValue({ type: 'duration', meaning: '' }, text, 'duration') as number;
  } catch {
    throw new InvalidArgumentError('it is not a duration such as 500ms, 10s, 5m, 1h or 7d');
  }
}
