interface Common {
  /** One sentence for the reference page: what it is for. */
  readonly meaning: string;
  /** Other environment variables that set it, weaker than the derived name. */
  readonly aliases?: readonly string[];
  /** Never shown; may also come from the file named by the variable with `_FILE` appended. */
  readonly secret?: true;
}
/** Limits of a number, inclusive; of a duration in milliseconds. */
export interface Bounds {
  readonly min?: number;
  readonly max?: number;
}
/** One row of a process's table of settings. Without a default the value may be undefined, unless `required`. */
export type Setting =
  | (Common & { readonly type: 'string'; readonly default?: string; readonly required?: true; readonly pattern?: RegExp })
  | (Common & Bounds & { readonly type: 'int'; readonly default?: number; readonly required?: true; readonly unit?: string })
  | (Common & Bounds & { readonly type: 'number'; readonly default: number })
  | (Common & { readonly type: 'bool'; readonly default: boolean })
  /** Milliseconds in code; written as `250ms`, `10s`, `5m`, `1h`, `30d`; a bare number counts `unit`s (default `s`). */
  | (Common &
      Bounds & {
        readonly type: 'duration';
        readonly default?: string;
        readonly required?: true;
        readonly unit?: 'ms' | 's' | 'm' | 'h' | 'd';
      })
  | (Common & { readonly type: 'enum'; readonly values: readonly string[]; readonly default?: string; readonly required?: true })
  /** Comma-separated in the environment, a list in the file. */
  | (Common & { readonly type: 'list'; readonly default: readonly string[] });

/** Checks and converts one value; `from` names its origin in errors, which show it only when it is no secret. */
export function readValue(setting: Setting, value: unknown, from: string): unknown {
  const shown = setting.secret ? 'the value (not shown)' : JSON.stringify(value);
  const refuse = (wanted: string) => new Error(`${from}: ${shown} is not ${wanted}`);
  switch (setting.type) {
    case 'string':
      if (typeof value !== 'string' && typeof value !== 'number') throw refuse('a text');
      if (setting.pattern && !setting.pattern.test(String(value))) throw refuse(`of the form ${setting.pattern.source}`);
      return String(value);
    case 'int':
      return within(setting, wholeNumber(value), refuse, setting.unit ?? '');
    case 'number':
      return within(setting, decimalNumber(value), refuse, '');
    case 'bool':
      if (value === true || value === 'true' || value === '1') return true;
      if (value === false || value === 'false' || value === '0') return false;
      throw refuse('true or false');
    case 'duration':
      return within(setting, durationMs(value, setting.unit ?? 's'), refuse, 'ms');
    case 'enum':
      if (!setting.values.includes(String(value))) throw refuse(`one of ${setting.values.join(', ')}`);
      return value;
    case 'list': {
      const items = Array.isArray(value) ? value : typeof value === 'string' ? value.split(',') : undefined;
      if (!items?.every((item) => typeof item === 'string')) throw refuse('a list of texts');
      return items.map((item) => item.trim()).filter((item) => item !== '');
    }
  }
}

const WANTED = {
  int: 'a whole number',
  number: 'a number such as 0.25',
  duration: 'a duration such as 500ms, 10s, 5m, 1h or 7d',
} as const;

function within(
  { min, max, type }: Bounds & { readonly type: 'int' | 'number' | 'duration' },
  value: number | undefined,
  refuse: (wanted: string) => Error,
  unit: string,
): number {
  if (value === undefined) throw refuse(WANTED[type]);
  if (min !== undefined && value < min) throw refuse(`at least ${min} ${unit}`.trim());
  if (max !== undefined && value > max) throw refuse(`at most ${max} ${unit}`.trim());
  return value;
}

function wholeNumber(value: unknown): number | undefined {
  if (typeof value !== 'number' && !(typeof value === 'string' && /^[+-]?\d+$/.test(value.trim()))) return undefined;
  return Number.isSafeInteger(Number(value)) ? Number(value) : undefined;
}

function decimalNumber(value: unknown): number | undefined {
  return /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(String(value).trim()) ? Number(value) : undefined;
}

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

function durationMs(value: unknown, bareUnit: keyof typeof UNIT_MS): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/.exec(String(value).trim());
  if (!match) return undefined;
  return Math.round(Number(match[1]) * UNIT_MS[(match[2] as keyof typeof UNIT_MS | undefined) ?? bareUnit]);
}
