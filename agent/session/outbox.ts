import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { type AttemptEvent, AttemptEventSchema } from '#proto/brokkr/v1/sync_pb.js';

/** Events on disk, unacknowledged; beyond it no attempt may end before the broker has taken some (the design's table of limits). */
const MAX_BYTES = 64 * 1024 * 1024;
/** The file is rewritten once acknowledged events make up most of so many bytes. */
const COMPACT_BYTES = 1024 * 1024;

/** What the outbox needs. */
export interface OutboxDeps {
  readonly log: Logger;
  readonly newId: () => string;
}

/** Where it is and how much it holds. */
export interface OutboxOptions {
  readonly dir: string;
  readonly maxBytes?: number;
}

interface Record {
  readonly seq: bigint;
  readonly bytes: Uint8Array;
}

interface Append {
  readonly event: AttemptEvent;
  readonly stored: PromiseWithResolvers<void>;
}

/** Opens the outbox of a directory, with what a process before this one left behind. Ends waiting appends when `signal` aborts. */
export async function openOutbox(deps: OutboxDeps, options: OutboxOptions, signal: AbortSignal): Promise<Outbox> {
  const path = join(options.dir, 'outbox.log');
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const found = parseFile(await readFile(path, 'utf8').catch(() => ''));
  const outbox = new Outbox(deps, { path, maxBytes: options.maxBytes ?? MAX_BYTES }, found ?? emptyState(deps.newId()), signal);
  await outbox.compact(); // drops a torn line and what was acknowledged
  return outbox;
}

/**
 * Outcomes of attempts, on disk until the broker has stored them. A line is `<seq> <crc32> <event in base64>`; the first
 * line is `boot <id> <last seq>`. A line torn by a crash belongs to an append that never resolved, and is dropped.
 */
export class Outbox {
  readonly #deps: OutboxDeps;
  readonly #options: { readonly path: string; readonly maxBytes: number };
  readonly #signal: AbortSignal;
  readonly #room = new Set<() => void>();
  readonly #state: State;
  #file: FileHandle | undefined;
  #fileBytes = 0;
  #torn = false;
  #queue: Append[] = [];
  #writing: Promise<void> | undefined;

  /** Use `openOutbox`. */
  constructor(
    deps: OutboxDeps,
    options: { readonly path: string; readonly maxBytes: number },
    state: State,
    signal: AbortSignal,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#state = state;
    this.#signal = signal;
  }

  /** Names the run of numbers; survives a restart with the disk. */
  get bootId(): string {
    return this.#state.bootId;
  }

  /** Highest number given out. */
  get lastSeq(): bigint {
    return this.#state.lastSeq;
  }

  /** Events the broker has not acknowledged. */
  get pending(): number {
    return this.#state.records.length;
  }

  /** Numbers the event and stores it; on disk when this resolves. Waits while the outbox is full. */
  async append(event: AttemptEvent): Promise<void> {
    while (this.#state.bytes >= this.#options.maxBytes) await this.#waitForRoom();
    this.#signal.throwIfAborted();
    const stored = Promise.withResolvers<void>();
    this.#queue.push({ event, stored });
    this.#writing ??= this.#writeAll();
    await stored.promise;
  }

  /** The oldest events after `seq`, at most `maxCount` and about `maxBytes`, at least one. */
  read(seq: bigint, maxCount: number, maxBytes: number): AttemptEvent[] {
    const events: AttemptEvent[] = [];
    let size = 0;
    for (const record of this.#state.records) {
      if (record.seq <= seq) continue;
      size += record.bytes.length;
      if (events.length >= maxCount || (events.length > 0 && size > maxBytes)) break;
      events.push(fromBinary(AttemptEventSchema, record.bytes));
    }
    return events;
  }

  /** The broker has stored everything up to `through`; acknowledgements of another run are ignored. */
  async acknowledge(bootId: string, through: bigint): Promise<void> {
    if (bootId !== this.#state.bootId) return;
    const before = this.#state.records.length;
    this.#state.records = this.#state.records.filter((record) => {
      if (record.seq > through) return true;
      this.#state.bytes -= record.bytes.length;
      return false;
    });
    if (this.#state.records.length === before) return;
    for (const resolve of this.#room) resolve();
    this.#room.clear();
    if (this.#fileBytes > COMPACT_BYTES && this.#fileBytes > 4 * this.#state.bytes && !this.#writing) {
      this.#writing = this.compact().finally(() => this.#afterWriting());
      await this.#writing;
    }
  }

  /** Writes the file anew, atomically. */
  async compact(): Promise<void> {
    const { path } = this.#options;
    const lines = this.#state.records.map(({ seq, bytes }) => line(seq, bytes));
    const text = `boot ${this.#state.bootId} ${this.#state.lastSeq}\n${lines.join('')}`;
    const fresh = await open(
      `${path}.new`,
      constants.O_CREAT | constants.O_TRUNC | constants.O_WRONLY | constants.O_APPEND,
      0o600,
    );
    await fresh.write(text);
    await fresh.datasync();
    await rename(`${path}.new`, path);
    await syncDirectory(dirname(path));
    await this.#file?.close();
    this.#file = fresh;
    this.#fileBytes = Buffer.byteLength(text);
  }

  /** Waits for the writer and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #waitForRoom(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#deps.log.error(
      { bytes: this.#state.bytes, events: this.pending },
      'outbox is full: attempts wait for the broker to take events',
    );
    this.#room.add(resolve);
    await abortable(promise, this.#signal);
  }

  /** One write and one sync for everything that queued up meanwhile. */
  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      try {
        await this.#write(batch);
        for (const { stored } of batch) stored.resolve();
      } catch (error) {
        for (const { stored } of batch) stored.reject(error);
      }
    }
    this.#afterWriting();
  }

  async #write(batch: readonly Append[]): Promise<void> {
    let { lastSeq } = this.#state;
    const records = batch.map(({ event }): Record => {
      lastSeq += 1n;
      return { seq: lastSeq, bytes: toBinary(AttemptEventSchema, { ...event, seq: lastSeq }) };
    });
    const text = records.map(({ seq, bytes }) => line(seq, bytes)).join('');
    this.#state.lastSeq = lastSeq; // a number that may be on disk is never given out twice
    if (this.#torn) await this.compact();
    this.#torn = true; // until the write is known to be whole: nothing may be appended to half a line
    await this.#file?.write(text);
    await this.#file?.datasync();
    this.#torn = false;
    this.#state.records.push(...records);
    this.#state.bytes += records.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#fileBytes += Buffer.byteLength(text);
  }

  #afterWriting(): void {
    this.#writing = this.#queue.length > 0 ? this.#writeAll() : undefined;
  }
}

interface State {
  readonly bootId: string;
  lastSeq: bigint;
  records: Record[];
  bytes: number;
}

function emptyState(bootId: string): State {
  return { bootId, lastSeq: 0n, records: [], bytes: 0 };
}

function line(seq: bigint, bytes: Uint8Array): string {
  return `${seq} ${crc32(bytes).toString(16)} ${Buffer.from(bytes).toString('base64')}\n`;
}

/** Undefined when the file is not ours: a new run of numbers begins then. */
function parseFile(text: string): State | undefined {
  const [head = '', ...lines] = text.split('\n');
  const match = /^boot (\S+) (\d+)$/.exec(head);
  if (!match?.[1]) return undefined;
  const state = { ...emptyState(match[1]), lastSeq: BigInt(match[2] ?? 0) };
  for (const each of lines) {
    const [, seq, sum, base64] = /^(\d+) ([0-9a-f]+) (\S+)$/.exec(each) ?? [];
    if (!seq || !base64) continue;
    const bytes = Buffer.from(base64, 'base64');
    if (crc32(bytes).toString(16) !== sum) continue;
    state.records.push({ seq: BigInt(seq), bytes });
    state.bytes += bytes.length;
    if (BigInt(seq) > state.lastSeq) state.lastSeq = BigInt(seq);
  }
  return state;
}

/** Makes a rename durable. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  await handle.sync().catch(() => undefined); // not every file system can
  await handle.close();
}
