import type { MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { InvalidArgumentError } from 'commander';
import { readValue } from '#lib/setting.ts';
import type { Gate, GateSchema, MaintenanceWindowSchema, Weekday } from '#proto/brokkr/v1/targeting_pb.js';
import { usageError } from './failure.ts';
import { timeText } from './show.ts';

type Window = MessageInitShape<typeof MaintenanceWindowSchema>;

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
const MINUTE_MS = 60_000;

/** `--not-before`, `--window` and `--now`. */
export interface GateOptions {
  readonly notBefore?: string;
  readonly window?: readonly Window[];
  readonly now?: boolean;
}

/** The gate that the options ask for; undefined when they ask for none. */
export function gateOf({ notBefore, window, now }: GateOptions): MessageInitShape<typeof GateSchema> | undefined {
  if (now === true && (notBefore !== undefined || window !== undefined))
    throw usageError('--now takes a gate away: it goes with neither --not-before nor --window');
  if (now === true) return {};
  if (notBefore === undefined && window === undefined) return undefined;
  const atMs = notBefore === undefined ? undefined : Date.parse(notBefore);
  if (Number.isNaN(atMs)) throw usageError(`${notBefore} is not a time`, 'for example 2026-01-31T22:00:00+01:00');
  return { ...(atMs !== undefined && { notBefore: timestampFromMs(atMs) }), windows: [...(window ?? [])] };
}

/** Collects `--window`: `[DAYS] HH:MM DURATION [ZONE]`, for example `mon-fri 22:00 4h Europe/Berlin` or `sat,sun 02:00 90m`. */
export function collectWindows(text: string, before: readonly Window[] | undefined): readonly Window[] {
  const match = /^(?:([a-z,-]+) +)?(\d\d:\d\d) +(\w+)(?: +(\S+))?$/i.exec(text.trim());
  if (!match)
    throw new InvalidArgumentError('it is not of the form [DAYS] HH:MM DURATION [ZONE]: mon-fri 22:00 4h Europe/Berlin');
  const [, days, start = '', duration = '', timeZone = ''] = match;
  return [
    ...(before ?? []),
    { days: days === undefined ? [] : daysOf(days), start, durationMinutes: minutesOf(duration), timeZone },
  ];
}

/** A gate for people, in the form of the options. */
export function gateText({ notBefore, windows }: Gate): string {
  const named = ({ days, start, durationMinutes, timeZone }: Gate['windows'][number]) =>
    [days.map((day) => DAYS[day - 1]).join(','), start, `${durationMinutes}m`, timeZone].filter((part) => part !== '').join(' ');
  return [...(notBefore ? [`not before ${timeText(notBefore)}`] : []), ...windows.map(named)].join('; ');
}

function daysOf(text: string): Weekday[] {
  const days = text
    .toLowerCase()
    .split(',')
    .flatMap((part) => {
      const [first = -1, last = first] = part.split('-').map((name) => (DAYS as readonly string[]).indexOf(name));
      if (first < 0 || last < 0)
        throw new InvalidArgumentError(`${part} is no day and no range of days: ${DAYS.join(', ')}, mon-fri`);
      const length = ((last - first + DAYS.length) % DAYS.length) + 1;
      return Array.from({ length }, (_, at) => (((first + at) % DAYS.length) + 1) as Weekday);
    });
  return [...new Set(days)];
}

function minutesOf(text: string): number {
  try {
    return Math.ceil((readValue({ type: 'duration', meaning: '' }, text, 'duration') as number) / MINUTE_MS);
  } catch {
    throw new InvalidArgumentError(`${text} is not a duration such as 90m or 4h`);
  }
}
