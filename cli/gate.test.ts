import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GateSchema, SelectorOperator, SelectorSource } from '#proto/brokkr/v1/targeting_pb.js';
import { collectWindows, gateOf, gateText } from './gate.ts';
import { readSelector } from './selector.ts';

describe('--window', () => {
  it.each([
    ['22:00 4h', { days: [], start: '22:00', durationMinutes: 240, timeZone: '' }],
    ['sat,sun 02:00 90m Europe/Berlin', { days: [6, 7], start: '02:00', durationMinutes: 90, timeZone: 'Europe/Berlin' }],
    ['fri-mon 00:30 30m', { days: [5, 6, 7, 1], start: '00:30', durationMinutes: 30, timeZone: '' }],
    ['Mon,mon-tue 01:00 1h UTC', { days: [1, 2], start: '01:00', durationMinutes: 60, timeZone: 'UTC' }],
  ])('%s', (text, window) => {
    expect(collectWindows(text, undefined)).toEqual([window]);
  });

  it.each([
    ['tomorrow', 'it is not of the form [DAYS] HH:MM DURATION [ZONE]'],
    ['mon-someday 02:00 1h', 'mon-someday is no day and no range of days'],
    ['02:00 soon', 'soon is not a duration such as 90m or 4h'],
  ])('%s is refused', (text, message) => {
    expect(() => collectWindows(text, undefined)).toThrow(message);
  });
});

describe('a gate', () => {
  it('is what the options say together, none without them, and empty for --now', () => {
    expect(gateOf({})).toBeUndefined();
    expect(gateOf({ now: true })).toEqual({});
    expect(gateOf({ notBefore: '2026-01-31T22:00:00+01:00' })).toEqual({
      notBefore: timestampFromMs(Date.UTC(2026, 0, 31, 21)),
      windows: [],
    });
    expect(() => gateOf({ notBefore: 'soon' })).toThrow('soon is not a time');
    expect(() => gateOf({ now: true, window: [] })).toThrow('--now takes a gate away');
  });

  it('is shown in the form of the options', () => {
    const windows = [...collectWindows('sat,sun 02:00 90m Europe/Berlin', collectWindows('22:00 1h', undefined))];
    const gate = create(GateSchema, { notBefore: timestampFromMs(0), windows });
    expect(gateText(gate)).toBe('not before 1970-01-01T00:00:00.000Z; 22:00 60m; sat,sun 02:00 90m Europe/Berlin');
  });
});

describe('--selector', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'brokkr-selector-'));
  });
  afterAll(() => rm(dir, { recursive: true }));
  const read = async (text: string) => {
    const path = join(dir, 'selector.yaml');
    await writeFile(path, text);
    return await readSelector(path);
  };

  it('is a file as REST spells it, or none', async () => {
    const selector = await read(`
all:
  - term: {source: label, operator: not_in, values: [edge]}
  - any: [{term: {source: capability, key: kubernetes_version, operator: gte, values: ["1.30"]}}]
`);
    expect(selector.all[0]?.term).toMatchObject({
      source: SelectorSource.LABEL,
      operator: SelectorOperator.NOT_IN,
      values: ['edge'],
    });
    expect(selector.all[1]?.any[0]?.term).toMatchObject({ source: SelectorSource.CAPABILITY, operator: SelectorOperator.GTE });
    expect(await readSelector('none')).toMatchObject({ noAgent: true });
  });

  it.each([
    ['term: {source: colour, operator: in}', '"colour" is not one of label, annotation, capability'],
    ['term: {source: label, key: a, operator: equals}', '"equals" is not one of in, not_in, exists'],
    ['every: true', 'key "every" is unknown'],
    ['[a', 'is not a selector'],
  ])('%s is refused', async (text, message) => {
    await expect(read(text)).rejects.toThrow(message);
  });

  it('that cannot be read is named', async () => {
    await expect(readSelector(join(dir, 'gone.yaml'))).rejects.toThrow('gone.yaml');
  });
});
