import { create } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, it } from 'vitest';
import { GateSchema } from '#proto/brokkr/v1/targeting_pb.js';
import { testDatabase } from '../../test/postgres.ts';
import { type Database, timestampMs } from '../database.ts';
import { type StoredWindow, storeGate } from './gate.ts';

let db: Database;
beforeAll(async () => {
  db = await (await testDatabase()).open();
});

const window = (more: Partial<StoredWindow> = {}): StoredWindow => ({
  days: [],
  start: '02:00',
  minutes: 60,
  time_zone: 'UTC',
  ...more,
});

/** Periods around a moment, in UTC to the minute, those that are over left out; `…` for without end. */
async function periods(at: string, windows: readonly StoredWindow[] | null, notBefore: string | null = null): Promise<string[]> {
  const rows = await db.query<{ opens: string; closes: string }>(
    `select opens::text, closes::text from gate_periods($1, $2, $3) where closes > $3 order by opens`,
    [notBefore, windows === null ? null : JSON.stringify(windows), at],
  );
  const text = (time: string) => (/infinity/.test(time) ? '…' : new Date(timestampMs(time)).toISOString().slice(0, 16));
  return rows.map(({ opens, closes }) => `${text(opens)} ${text(closes)}`);
}

describe('the periods of a gate', () => {
  it('are one without an end for a start time', async () => {
    expect(await periods('2026-03-10T12:00Z', null, '2026-04-01T00:00Z')).toEqual(['2026-04-01T00:00 …']);
    expect(await periods('2026-05-10T12:00Z', null)).toEqual(['… …']);
  });

  it('repeat on their days for at least a week, the one that is on first', async () => {
    const weekend = window({ days: [6, 7], start: '22:00', minutes: 180 });
    expect(await periods('2026-03-08T00:30Z', [weekend])).toEqual([
      '2026-03-07T22:00 2026-03-08T01:00', // a Saturday's, over midnight
      '2026-03-08T22:00 2026-03-09T01:00',
      '2026-03-14T22:00 2026-03-15T01:00',
      '2026-03-15T22:00 2026-03-16T01:00',
    ]);
    expect(await periods('2026-03-08T01:00Z', [weekend])).not.toContain('2026-03-07T22:00 2026-03-08T01:00');
  });

  it('begin no earlier than the start time, and look as far ahead as that is', async () => {
    const monthly = await periods('2026-01-01T00:00Z', [window({ days: [1] })], '2026-07-06T02:30Z');
    expect(monthly.slice(0, 2)).toEqual(['2026-07-06T02:30 2026-07-06T03:00', '2026-07-13T02:00 2026-07-13T03:00']);
  });

  it('follow the wall clock of their time zone when clocks change', async () => {
    const berlin = (start: string, minutes = 60) => [window({ start, minutes, time_zone: 'Europe/Berlin' })];
    // 2026-03-29: 02:00 becomes 03:00; 2026-10-25: 03:00 becomes 02:00
    expect((await periods('2026-03-28T12:00Z', berlin('22:00'))).slice(0, 2)).toEqual([
      '2026-03-28T21:00 2026-03-28T22:00',
      '2026-03-29T20:00 2026-03-29T21:00',
    ]);
    expect((await periods('2026-03-28T12:00Z', berlin('02:30')))[0]).toBe('2026-03-29T01:30 2026-03-29T02:30'); // 03:30 in summer time
    expect((await periods('2026-10-24T12:00Z', berlin('02:30')))[0]).toBe('2026-10-25T01:30 2026-10-25T02:30'); // the second 02:30
    expect((await periods('2026-10-24T12:00Z', berlin('00:30', 240)))[0]).toBe('2026-10-24T22:30 2026-10-25T02:30'); // 4 h that pass
    // Sat 23:30 for 24 h is still on at Mon 00:15 summer time, two dates later
    const late = [window({ days: [6], start: '23:30', minutes: 1440, time_zone: 'Europe/Berlin' })];
    expect((await periods('2026-03-29T22:15Z', late))[0]).toBe('2026-03-28T22:30 2026-03-29T22:30');
  });

  it('are of time zones that exist', () => {
    const gate = (timeZone: string) => create(GateSchema, { windows: [{ start: '02:00', durationMinutes: 60, timeZone }] });
    expect(storeGate(gate(''), 'invalid_stack').windows).toEqual([window()]);
    expect(storeGate(gate('America/New_York'), 'invalid_stack').windows?.[0]?.time_zone).toBe('America/New_York');
    expect(() => storeGate(gate('Mars/Base3'), 'invalid_stack')).toThrow(
      'gate.windows[0].time_zone: "Mars/Base3" is not an IANA time zone',
    );
  });
});
