import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { Piscina } from 'piscina';
import { type Clock, systemClock, TimeoutError } from './clock.ts';
import { BrokkrError } from './errors.ts';
import type { HealthQuestion, HealthVerdict } from './health-rules.ts';
import type { RulesFile } from './rules-file.ts';
import type { PublishInput, PublishResult } from './yaml-content.ts';
import type { Change, DiffInput } from './yaml-diff.ts';
import type { PrepareInput, PrepareResult } from './yaml-prepare.ts';

/** Settings of the pool. */
export interface YamlPoolOptions {
  /** Threads at most; none run when nothing is to do. */
  readonly maxThreads: number;
  /** How long an idle thread is kept, in milliseconds; 30 s when not given. */
  readonly idleTimeoutMs?: number;
  /** How long one task may take, waiting included, in milliseconds; 30 s when not given. */
  readonly taskTimeoutMs?: number;
  /** Tasks that may wait; 64 for each thread when not given. More are refused with `too_many_requests`. */
  readonly maxQueue?: number;
  /** Heap of one thread in MiB; 1024 when not given. A text that needs more is refused with `payload_too_large`. */
  readonly maxHeapMb?: number;
}

/** Tasks since the start, for the metrics. `check` counts those of `prepare` that also validate against schemas. */
export interface TaskCounts {
  readonly parse: number;
  readonly prepare: number;
  readonly check: number;
  readonly diff: number;
}

const IDLE_TIMEOUT_MS = 30_000;
const TASK_TIMEOUT_MS = 30_000;
const QUEUE_PER_THREAD = 64;
const MAX_HEAP_MB = 1024;

/** A pool of threads for YAML work. Dispose it when the process ends. */
export function createYamlPool(options: YamlPoolOptions, clock: Clock = systemClock): YamlPool {
  return new YamlPool(options, clock);
}

/**
 * All YAML work of a process, off its event loop. Each task rejects with the signal's reason once it aborts (the thread
 * is replaced), and with `deadline_exceeded`, `too_many_requests` or `payload_too_large` as a `BrokkrError`. What is wrong
 * with a text is no failure: it is in the problems of the result.
 */
export class YamlPool {
  readonly #piscina: Piscina;
  readonly #clock: Clock;
  readonly #taskTimeoutMs: number;
  readonly #maxThreads: number;
  readonly #maxQueue: number;
  #running = 0;
  #closed = false;
  readonly #waiting: (() => void)[] = [];
  readonly #counts = { parse: 0, prepare: 0, check: 0, diff: 0 };

  constructor(options: YamlPoolOptions, clock: Clock) {
    this.#clock = clock;
    this.#taskTimeoutMs = options.taskTimeoutMs ?? TASK_TIMEOUT_MS;
    this.#maxThreads = options.maxThreads;
    this.#maxQueue = options.maxQueue ?? QUEUE_PER_THREAD * options.maxThreads;
    const running = import.meta.url.endsWith('.ts') ? './yaml-worker.ts' : './yaml-worker.js';
    this.#piscina = new Piscina({
      filename: new URL(running, import.meta.url).href,
      minThreads: 0,
      maxThreads: options.maxThreads,
      idleTimeout: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
      resourceLimits: { maxOldGenerationSizeMb: options.maxHeapMb ?? MAX_HEAP_MB },
      env: threadEnv(),
    });
  }

  /** Parses, checks and digests a text for the broker. */
  publish(input: PublishInput, signal: AbortSignal): Promise<PublishResult> {
    this.#counts.parse++;
    return this.#run('publish', input, signal);
  }

  /** Turns fetched documents into objects ready to be sent, for the agent. */
  prepare(input: PrepareInput, signal: AbortSignal): Promise<PrepareResult> {
    this.#counts.prepare++;
    if (input.schemas) this.#counts.check++;
    return this.#run('prepare', input, signal);
  }

  /** Reads and checks the text of a rules file. */
  rules(text: string, signal: AbortSignal): Promise<RulesFile> {
    return this.#run('rules', text, signal);
  }

  /** Judges objects by health rules, in the order given. */
  health(questions: readonly HealthQuestion[], signal: AbortSignal): Promise<HealthVerdict[]> {
    return this.#run('health', questions, signal);
  }

  /** Structural difference of two objects given as JSON, for reports. */
  diff(input: DiffInput, signal: AbortSignal): Promise<Change[]> {
    this.#counts.diff++;
    return this.#run('diff', input, signal);
  }

  /** Tasks begun so far. */
  get counts(): TaskCounts {
    return { ...this.#counts };
  }

  /** Tasks that wait for a thread. */
  get queued(): number {
    return this.#waiting.length;
  }

  /** Ends all threads; tasks that still run or wait reject. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#piscina.destroy();
  }

  async #run<Result>(name: string, input: unknown, signal: AbortSignal): Promise<Result> {
    signal.throwIfAborted();
    using deadline = this.#clock.deadline(this.#taskTimeoutMs, signal);
    try {
      await this.#slot(deadline.signal);
      try {
        if (this.#closed) throw new BrokkrError('unavailable', 'the yaml pool is closed');
        return (await this.#piscina.run(input, { name, signal: deadline.signal })) as Result;
      } finally {
        this.#release();
      }
    } catch (error) {
      throw signal.aborted ? signal.reason : explain(error, deadline.signal, this.#taskTimeoutMs);
    }
  }

  /**
   * Waits for a thread, first come first served. Piscina gets no more than it can run: the queue in which it keeps tasks
   * with a signal ignores `maxQueue` and the order of arrival (5.3).
   */
  async #slot(signal: AbortSignal): Promise<void> {
    if (this.#running < this.#maxThreads) {
      this.#running++;
      return;
    }
    if (this.#waiting.length >= this.#maxQueue) {
      throw new BrokkrError('too_many_requests', `${this.#maxQueue} yaml tasks are waiting already`);
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => {
      const place = this.#waiting.indexOf(resolve);
      if (place === -1) return; // the thread is ours already; the task itself will see the signal
      this.#waiting.splice(place, 1);
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    this.#waiting.push(resolve);
    await promise;
    signal.removeEventListener('abort', onAbort);
  }

  /** Hands the thread to the next in line. */
  #release(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#running--;
  }
}

/**
 * Nothing but the process's cache of compiled code, which a thread does not take over by itself: with it a thread is up
 * after 70 ms instead of 200 and takes 6 MiB instead of 60 (the first; each needs Node's TypeScript stripper otherwise).
 */
function threadEnv(): Record<string, string> {
  const versioned = getCompileCacheDir(); // Node adds a folder for itself to the one it is given
  return versioned === undefined ? {} : { NODE_COMPILE_CACHE: dirname(versioned) };
}

function explain(error: unknown, deadline: AbortSignal, timeoutMs: number): unknown {
  if (deadline.reason instanceof TimeoutError) {
    return new BrokkrError('deadline_exceeded', `the yaml task took longer than ${timeoutMs} ms`, { cause: error });
  }
  if (!(error instanceof Error)) return error;
  if ('code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY') {
    return new BrokkrError('payload_too_large', 'the text needs more memory than a yaml task may use', { cause: error });
  }
  return error;
}
