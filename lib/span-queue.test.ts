import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace';
import { describe, expect, it } from 'vitest';
import { FakeClock, turn } from '../test/fake-clock.ts';
import type { Logger } from './log.ts';
import { SpanQueue, type SpanResult } from './span-queue.ts';

type Answer = Parameters<SpanExporter['export']>[1];

/** A queue before a collector that a test plays, its clock, and what was told of it. */
function openQueue() {
  const clock = new FakeClock();
  const sent: { readonly spans: number; readonly answer: Answer }[] = [];
  const counts: Record<SpanResult, number> = { exported: 0, dropped: 0, failed: 0 };
  const lines: unknown[] = [];
  const exporter: SpanExporter = {
    export: (spans, answer) => void sent.push({ spans: spans.length, answer }),
    shutdown: async () => undefined,
  };
  const log = { warn: (fields: unknown) => lines.push(fields) } as unknown as Logger;
  const count = (result: SpanResult, spans: number) => {
    counts[result] += spans;
  };
  const queue = new SpanQueue({ exporter, reach: async () => undefined, clock, log, count });
  const end = (spans: number) => {
    for (let index = 0; index < spans; index++) queue.onEnd({} as ReadableSpan);
  };
  return { queue, clock, sent, counts, lines, end };
}

describe('the queue of spans', () => {
  it('sends batches one after the other, a second after the first span', async () => {
    const { queue, clock, sent, counts, end } = openQueue();
    end(600);
    await turn();
    await clock.advance(999);
    await turn();
    expect(sent).toEqual([]);
    await clock.advance(1);
    await turn();
    expect(sent.map(({ spans }) => spans)).toEqual([512]);
    sent[0]?.answer({ code: 0 });
    await turn();
    sent[1]?.answer({ code: 0 });
    await turn();
    expect(sent.map(({ spans }) => spans)).toEqual([512, 88]);
    expect(counts).toEqual({ exported: 600, dropped: 0, failed: 0 });
    await queue[Symbol.asyncDispose]();
  });

  it('loses what has no room and what is not taken, counts it, and says so once a minute', async () => {
    const { queue, clock, sent, counts, lines, end } = openQueue();
    end(8192 + 10);
    expect(counts).toEqual({ exported: 0, dropped: 10, failed: 0 });
    expect(lines).toEqual([{ spans: 1, reason: 'more than 8192 spans wait' }]);
    await turn();
    await clock.advance(1000);
    await turn();
    sent[0]?.answer({ code: 1, error: new Error('UNAVAILABLE') });
    await turn();
    expect(counts).toEqual({ exported: 0, dropped: 10, failed: 512 });
    expect(lines).toHaveLength(1);
    await clock.advance(60_000);
    sent[1]?.answer({ code: 1, error: new Error('UNAVAILABLE') });
    await turn();
    expect(lines).toEqual([expect.anything(), { spans: 9 + 512 + 512, reason: 'UNAVAILABLE' }]);
    const disposed = queue[Symbol.asyncDispose]();
    await clock.advance(2000);
    await disposed;
  });

  it('gives the last spans two seconds when the process stops', async () => {
    const { queue, clock, sent, counts, lines, end } = openQueue();
    end(600);
    const disposed = queue[Symbol.asyncDispose]();
    await turn();
    expect(sent.map(({ spans }) => spans)).toEqual([512]); // and no answer
    await clock.advance(2000);
    await disposed;
    expect(counts).toEqual({ exported: 0, dropped: 88, failed: 0 });
    expect(lines).toEqual([{ spans: 88, reason: 'the process stops' }]);
  });
});
