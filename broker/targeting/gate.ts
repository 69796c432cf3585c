import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { BrokkrError, type ErrorName } from '#lib/errors.ts';
import { type Gate, GateSchema } from '#proto/brokkr/v1/targeting_pb.js';
import { timestampMs as storedMs } from '../database.ts';

/** The gate of a head as the database has it. */
export interface StoredGate {
  readonly not_before: string | null;
  readonly windows: readonly StoredWindow[] | null;
}

/** A window as the function `gate_periods` reads it. */
export interface StoredWindow {
  /** ISO 8601, from 1 for Monday; every day when empty. */
  readonly days: readonly number[];
  /** HH:MM. */
  readonly start: string;
  readonly minutes: number;
  readonly time_zone: string;
}

/** A gate for the database; without any condition it is none. Throws `code` for a time zone that does not exist. */
export function storeGate({ notBefore, windows }: Gate, code: ErrorName): StoredGate {
  for (const [at, { timeZone }] of windows.entries()) assertZone(timeZone || UTC, `gate.windows[${at}].time_zone`, code);
  return {
    not_before: notBefore ? new Date(timestampMs(notBefore)).toISOString() : null,
    windows:
      windows.length === 0
        ? null
        : windows.map(({ days, start, durationMinutes, timeZone }) => ({
            days: days.toSorted((a, b) => a - b),
            start,
            minutes: durationMinutes,
            time_zone: timeZone || UTC,
          })),
  };
}

/** A gate as the API shows it; undefined when there is none. */
export function gateToProto({ not_before, windows }: StoredGate): MessageInitShape<typeof GateSchema> | undefined {
  if (not_before === null && windows === null) return undefined;
  return create(GateSchema, {
    ...(not_before !== null && { notBefore: timestampFromMs(storedMs(not_before)) }),
    windows: (windows ?? []).map(({ days, start, minutes, time_zone }) => ({
      days: [...days],
      start,
      durationMinutes: minutes,
      timeZone: time_zone,
    })),
  });
}

const UTC = 'UTC';

/** By the names that Node knows: the database would also take `XYZ+3` for a zone. One it lacks fails the publication. */
function assertZone(zone: string, field: string, code: ErrorName): void {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
  } catch {
    throw new BrokkrError(code, `${field}: ${JSON.stringify(zone)} is not an IANA time zone such as Europe/Berlin`, {
      details: { field },
    });
  }
}
