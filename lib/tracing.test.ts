import { describe, expect, it } from 'vitest';
import { activeTraceFields, activeTraceparent, beginServerSpan, sampledTraceparent } from './tracing.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const SAMPLED = `00-${TRACE}-${SPAN}-01`;

describe('a traceparent', () => {
  it('is kept when it is sampled, in the present version', () => {
    expect(sampledTraceparent(SAMPLED)).toBe(SAMPLED);
    expect(sampledTraceparent(`00-${TRACE}-${SPAN}-ff`)).toBe(SAMPLED); // other flags are not ours to set
    expect(sampledTraceparent(`cc-${TRACE}-${SPAN}-01-what-the-future-will-be-like`)).toBe(SAMPLED);
  });

  it.each([
    ['absent', undefined],
    ['empty', ''],
    ['not sampled', `00-${TRACE}-${SPAN}-00`],
    ['of no version', `ff-${TRACE}-${SPAN}-01`],
    ['of no trace', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['of no span', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['in capitals', SAMPLED.toUpperCase()],
    ['too long for its version', `${SAMPLED}-00`],
    ['too short', SAMPLED.slice(0, -1)],
    ['in a list', `${SAMPLED}, ${SAMPLED}`],
  ])('is dropped when it is %s', (_, text) => {
    expect(sampledTraceparent(text)).toBeUndefined();
  });
});

it('makes no trace while the SDK is not loaded', () => {
  const { span, run } = beginServerSpan('request', SAMPLED, {});
  expect(span.isRecording()).toBe(false);
  expect(run(() => [activeTraceparent(), activeTraceFields()])).toEqual([undefined, {}]);
});
