import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { load, YAMLException } from 'js-yaml';
import { errorText } from './errors.ts';
import { type Bounds, readValue, type Setting } from './setting.ts';

/** `section.key` (snake case) → setting. */
export type Settings = Readonly<Record<string, Setting>>;

/** A table made by `defineConfig`. */
export interface ConfigTable<S extends Settings> {
  readonly settings: S;
  /** Sections of other processes: they may stand in the same environment and file. */
  readonly foreignSections: readonly string[];
}

type Camel<T extends string> = T extends `${infer A}_${infer B}`
  ? `${A}${Capitalize<Camel<B>>}`
  : T extends `${infer A}.${infer B}`
    ? `${A}${Capitalize<Camel<B>>}`
    : T;
type Base<T extends Setting> = T extends { type: 'int' | 'number' | 'duration' }
  ? number
  : T extends { type: 'bool' }
    ? boolean
    : T extends { type: 'list' }
      ? readonly string[]
      : T extends { type: 'enum'; values: readonly (infer V)[] }
        ? V
        : string;
type Value<T extends Setting> = T extends { default: unknown } | { required: true } ? Base<T> : Base<T> | undefined;
type Section<K> = K extends `${infer S}.${string}` ? S : never;
type Name<K, S extends string, T extends Setting> = K extends `${S}.${infer R}`
  ? T extends { type: 'duration' }
    ? `${Camel<R>}Ms`
    : Camel<R>
  : never;

/**
 * The values of a table: `database.pool_max` is `config.database.poolMax`; a duration's name gets `Ms`. Printing a
 * section (JSON, logs, `inspect`) shows secrets as `[redacted]`.
 */
export type Config<S extends Settings> = {
  readonly [X in Section<keyof S>]: { readonly [K in keyof S as Name<K, X, S[K]>]: Value<S[K]> };
};

/** Every problem of a configuration at once; the message lists them, one a line, without values of secrets. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `the configuration has ${problems.length} problem${problems.length === 1 ? '' : 's'}:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`,
    );
    this.problems = problems;
  }
}

/** Declares the settings of a process. Throws when the table itself is wrong (a default that its own row refuses). */
export function defineConfig<const S extends Settings>(
  settings: S,
  { foreignSections = [] }: { readonly foreignSections?: readonly string[] } = {},
): ConfigTable<S> {
  for (const [key, setting] of Object.entries(settings)) {
    if (!/^[a-z]+(\.[a-z][a-z0-9_]*)+$/.test(key)) throw new Error(`${key} is not of the form section.key`);
    if (setting.default !== undefined) readValue(setting, setting.default, key);
  }
  return { settings, foreignSections };
}

/** The variable of a setting: `broker.data_dir` → `BROKKR__BROKER__DATA_DIR`. */
function environmentName(key: string): string {
  return `BROKKR__${key.toUpperCase().replaceAll('.', '__')}`;
}

/** Where values come from. */
export interface ConfigSource {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** YAML or JSON file of sections; `BROKKR_CONFIG_FILE` when absent. */
  readonly file?: string;
}

/**
 * Reads a process's configuration: environment over file over defaults. An empty variable counts as absent. Throws one
 * `ConfigError` with every problem: wrong values, missing ones, unknown names (with the nearest known), unreadable files.
 */
export function loadConfig<S extends Settings>(table: ConfigTable<S>, source: ConfigSource): Config<S> {
  const problems: string[] = [];
  const path = source.file ?? source.env.BROKKR_CONFIG_FILE;
  const fromFile = path ? readConfigFile(path, table, problems) : new Map<string, unknown>();
  reportUnknownVariables(table, source.env, problems);
  const sections: Record<string, Record<string, unknown>> = {};
  const secrets: Record<string, string[]> = {};
  for (const [key, setting] of Object.entries<Setting>(table.settings)) {
    const [section = '', name = ''] = propertyPath(key, setting);
    const found =
      fromEnvironment(key, setting, source.env, problems) ??
      (fromFile.has(key) ? { value: fromFile.get(key), from: `${key} in ${path}` } : undefined);
    sections[section] ??= {};
    secrets[section] ??= [];
    if (setting.secret) secrets[section].push(name);
    try {
      if (found) sections[section][name] = readValue(setting, found.value, found.from);
      else if (setting.default !== undefined) sections[section][name] = readValue(setting, setting.default, key);
      else if ('required' in setting && setting.required) problems.push(`${environmentName(key)} is missing: ${setting.meaning}`);
      else sections[section][name] = undefined;
    } catch (error) {
      problems.push(errorText(error));
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  for (const [section, values] of Object.entries(sections)) hideSecrets(values, secrets[section] ?? []);
  return sections as Config<S>;
}

/** One row of the reference page. */
export interface SettingRow {
  readonly key: string;
  readonly variable: string;
  readonly aliases: readonly string[];
  readonly type: string;
  readonly default: string;
  readonly limits: string;
  readonly secret: boolean;
  readonly meaning: string;
}

/** The table as text, for the reference page, in the order declared. */
export function describeConfig(table: ConfigTable<Settings>): readonly SettingRow[] {
  return Object.entries(table.settings).map(([key, setting]) => {
    const { min, max } = setting as Bounds;
    const limits = [min !== undefined && `≥ ${min}`, max !== undefined && `≤ ${max}`].filter(Boolean).join(', ');
    const unit =
      setting.type === 'int'
        ? setting.unit
        : setting.type === 'duration'
          ? `ms in limits, bare number in ${setting.unit ?? 's'}`
          : undefined;
    return {
      key,
      variable: environmentName(key),
      aliases: setting.aliases ?? [],
      type: setting.type === 'enum' ? setting.values.join(' | ') : unit ? `${setting.type} (${unit})` : setting.type,
      default: setting.default === undefined ? ('required' in setting ? 'required' : 'none') : String(setting.default),
      limits,
      secret: setting.secret ?? false,
      meaning: setting.meaning,
    };
  });
}

interface Found {
  readonly value: unknown;
  readonly from: string;
}

function fromEnvironment(key: string, setting: Setting, env: ConfigSource['env'], problems: string[]): Found | undefined {
  for (const variable of [environmentName(key), ...(setting.aliases ?? [])]) {
    const path = setting.secret ? env[`${variable}_FILE`] : undefined;
    const value = env[variable];
    if (path && value) problems.push(`${variable} and ${variable}_FILE are both set: keep one`);
    if (path) {
      try {
        return { value: readFileSync(path, 'utf8').replace(/\r?\n$/, ''), from: `${variable}_FILE` };
      } catch (error) {
        problems.push(`${variable}_FILE: ${errorText(error)}`);
        return undefined;
      }
    }
    if (value) return { value, from: variable };
  }
  return undefined;
}

function propertyPath(key: string, setting: Setting): [section: string, name: string] {
  const dot = key.indexOf('.');
  const name = key.slice(dot + 1).replace(/[_.]([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  return [key.slice(0, dot), setting.type === 'duration' ? `${name}Ms` : name];
}

function readConfigFile(path: string, table: ConfigTable<Settings>, problems: string[]): ReadonlyMap<string, unknown> {
  const found = new Map<string, unknown>();
  let content: unknown;
  try {
    content = load(readFileSync(path, 'utf8'), { maxAliases: 0 }); // JSON is YAML
  } catch (error) {
    const reason = error instanceof YAMLException ? `${error.reason} in line ${(error.mark?.line ?? 0) + 1}` : errorText(error); // its message quotes the file
    problems.push(`the configuration file ${path} cannot be read: ${reason}`);
    return found;
  }
  const visit = (value: unknown, key: string) => {
    if (table.foreignSections.includes(key)) return;
    if (key in table.settings) {
      if (value !== null) found.set(key, value);
    } else if (isMapping(value)) {
      for (const [name, inner] of Object.entries(value)) visit(inner, key ? `${key}.${name}` : name);
    } else if (key || (value !== null && value !== undefined)) {
      problems.push(
        key ? `${key} in ${path} is unknown${nearest(key, Object.keys(table.settings))}` : `${path} is not a mapping of sections`,
      );
    }
  };
  visit(content, '');
  return found;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function reportUnknownVariables(table: ConfigTable<Settings>, env: ConfigSource['env'], problems: string[]): void {
  const known = Object.entries(table.settings).flatMap(([key, setting]) =>
    setting.secret ? [environmentName(key), `${environmentName(key)}_FILE`] : [environmentName(key)],
  );
  const foreign = table.foreignSections.map((section) => `BROKKR__${section.toUpperCase()}__`);
  for (const variable of Object.keys(env).sort()) {
    if (!variable.startsWith('BROKKR__') || known.includes(variable) || foreign.some((prefix) => variable.startsWith(prefix)))
      continue;
    problems.push(`${variable} is unknown${nearest(variable, known)}`);
  }
}

function nearest(name: string, known: readonly string[]): string {
  const best = known.map((each) => ({ each, distance: editDistance(name, each) })).sort((a, b) => a.distance - b.distance)[0];
  return best && best.distance <= Math.max(3, name.length / 3) ? `: did you mean ${best.each}?` : '';
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function hideSecrets(values: Record<string, unknown>, secrets: readonly string[]): void {
  const visible = () => ({
    ...values,
    ...Object.fromEntries(secrets.filter((name) => values[name] !== undefined).map((name) => [name, '[redacted]'])),
  });
  Object.defineProperty(values, 'toJSON', { value: visible, enumerable: false });
  Object.defineProperty(values, inspect.custom, { value: visible, enumerable: false });
  Object.freeze(values);
}
