import type { ReadableSpan, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace';
import type { Clock } from './clock.ts';
import { errorText } from './errors.ts';
import type { Logger } from './log.ts';
import { explainFailure } from './reach-failure.ts';
import { abortable, Wakeup } from './signal.ts';

type ExportResult = Parameters<Parameters<SpanExporter['export']>[1]>[0];

/** What became of a span. */
export type SpanResult = 'exported' | 'dropped' | 'failed';

/** What the queue needs. */
export interface SpanQueueDeps {
  readonly exporter: SpanExporter;
  /** Rejects when no connection to the collector can be made. */
  readonly reach: (signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly count: (result: SpanResult, spans: number) => void;
}

/** Spans that wait; about 2 KiB each. A stack of 5,000 objects fits. */
const MAX_WAITING = 8192;
/** Spans sent in one request (the default of the specification, OTEL_BSP_MAX_EXPORT_BATCH_SIZE). */
const BATCH = 512;
/** How long a span waits for others. */
const DELAY_MS = 1_000;
/** Lost spans are spoken of this often. */
const REPORT_MS = 60_000;
/** What waits when the process stops is sent for this long. */
const FLUSH_MS = 2_000;
/** `ExportResultCode.SUCCESS` of the SDK. */
const SUCCESS = 0;

/**
 * Takes spans that have ended and sends them in batches, one at a time. Never holds anybody up: past its bound, and when
 * the collector does not take them, spans are lost, counted, and named in one log line a minute.
 */
export class SpanQueue implements SpanProcessor, AsyncDisposable {
  readonly #deps: SpanQueueDeps;
  readonly #wakeup = new Wakeup();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #waiting: ReadableSpan[] = [];
  /** The last batch was taken. */
  #reached = false;
  #lost = 0;
  #reportedAt = Number.NEGATIVE_INFINITY;

  constructor(deps: SpanQueueDeps) {
    this.#deps = deps;
    this.#running = this.#run(this.#stop.signal);
  }

  onStart(): void {
    // a span is of interest once it has ended
  }

  onEnd(span: ReadableSpan): void {
    if (this.#waiting.length >= MAX_WAITING) this.#lose('dropped', 1, `more than ${MAX_WAITING} spans wait`);
    else if (this.#waiting.push(span) === 1) this.#wakeup.wake();
  }

  async forceFlush(): Promise<void> {
    await this.#send(new AbortController().signal);
  }

  async shutdown(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }

  /** Sends what waits, for 2 s at most. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { clock, exporter } = this.#deps;
    this.#stop.abort(new Error('the process stops'));
    using deadline = clock.deadline(FLUSH_MS, new AbortController().signal);
    const sent = this.#running.then(() => this.#send(deadline.signal));
    await abortable(sent, deadline.signal).catch(() => undefined);
    if (this.#waiting.length > 0) this.#lose('dropped', this.#waiting.length, 'the process stops');
    exporter.shutdown().catch(() => undefined); // closes the connection once the last request is over, which has a deadline
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#wakeup.wait(signal);
        await this.#deps.clock.sleep(DELAY_MS, signal);
      } catch {
        return; // stopped; whoever stopped it sends the rest
      }
      await this.#send(signal);
    }
  }

  async #send(signal: AbortSignal): Promise<void> {
    while (this.#waiting.length > 0 && !signal.aborted) {
      const batch = this.#waiting.slice(0, BATCH);
      this.#waiting = this.#waiting.slice(BATCH);
      const problem = await this.#export(batch, signal);
      if (problem === undefined) this.#deps.count('exported', batch.length);
      else this.#lose('failed', batch.length, problem);
    }
  }

  /**
   * Why the collector did not take the spans. gRPC cannot be told to stop dialling, which would hold up the end of the
   * process: it dials only what was reached.
   */
  async #export(batch: ReadableSpan[], signal: AbortSignal): Promise<string | undefined> {
    const { exporter, reach } = this.#deps;
    try {
      if (!this.#reached) await reach(signal);
    } catch (error) {
      return explainFailure(error);
    }
    const { code, error } = await new Promise<ExportResult>((resolve) => exporter.export(batch, resolve));
    this.#reached = code === SUCCESS;
    return this.#reached ? undefined : errorText(error ?? 'no reason given');
  }

  #lose(result: 'dropped' | 'failed', spans: number, reason: string): void {
    const { clock, log, count } = this.#deps;
    count(result, spans);
    this.#lost += spans;
    if (clock.monotonic() - this.#reportedAt < REPORT_MS) return;
    log.warn({ spans: this.#lost, reason }, 'spans lost');
    this.#lost = 0;
    this.#reportedAt = clock.monotonic();
  }
}
