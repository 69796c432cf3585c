import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { Wakeup } from '#lib/signal.ts';
import {
  type BucketEntries,
  type GoAway,
  type HeldEntry,
  type Nack,
  NackCode,
  type SessionConfig,
  SyncMode,
  type WelcomeSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import { type Frame, Frames } from './frames.ts';
import type { Heads } from './heads.ts';
import type { Position } from './store.ts';
import { type Body, type Desired, encodeBody, TargetState, tombstoneOf } from './target-state.ts';

/** What a session is opened with. */
export interface SessionOptions {
  readonly agentId: string;
  readonly agentName: string;
  readonly keyId: string;
  readonly epoch: bigint;
  readonly token: string;
  readonly transport: 'stream' | 'poll';
  readonly processId: string;
  readonly connectedAtMs: number;
  readonly windowFrames: number;
}

/** Control frames waiting; beyond it the peer asks faster than it reads. */
const MAX_CONTROL = 64;
/** Bounds of the time until a refused frame is sent again. */
const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 600_000;
/** Unknown stacks of one agent waiting to be told; no agent holds that many. */
const MAX_ABSENT = 20_000;

/**
 * One agent's session, independent of its transport: the target state as the agent should have it, a set of dirty
 * stacks, and frames made at the moment they are taken. Nothing is queued per message: a stack that changes ten times
 * before the agent reads is one frame.
 */
export class AgentSession {
  readonly options: SessionOptions;
  readonly #heads: Heads;
  readonly #target = new TargetState();
  readonly #frames: Frames;
  /** Manifest digests the agent has said it holds. */
  readonly #received = new Map<string, Uint8Array>();
  readonly #dirty = new Set<string>();
  /** Stacks the agent holds and should not, nor was ever told to remove. */
  readonly #absent = new Set<string>();
  /** Stacks whose frame was refused and is not to be sent again yet. */
  readonly #resting = new Set<string>();
  readonly #control: Body[] = [];
  readonly #wakeup = new Wakeup();
  readonly #ended = new AbortController();
  #listing: 'none' | 'waiting for buckets' | 'sending' = 'none';
  #bucketsSeen = new Map<string, bigint>();
  #goAway: GoAway | undefined;
  #position: Position = { xid: 0n, seq: 0n, nonce: 0n };
  #mismatches = 0;
  #open = false;

  constructor(heads: Heads, options: SessionOptions) {
    this.#heads = heads;
    this.#frames = new Frames(options.windowFrames);
    this.options = options;
  }

  /** Aborts when the session is over; the reason is a text. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** Whether Welcome is on its way; nothing may be queued before it. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** The numbers of its frames. */
  get frames(): Pick<Frames, 'seq' | 'ack' | 'taken' | 'unacked'> {
    return this.#frames;
  }

  /** What the agent should have; changed by `want`. */
  get target(): Pick<TargetState, 'size' | 'get' | 'known' | 'isHeld'> {
    return this.#target;
  }

  /** Stacks waiting to be sent. */
  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Notes the agent's frame numbers; frames up to `ack` need not be sent again. */
  took(numbers: { readonly seq: bigint; readonly ack: bigint }): void {
    this.#frames.took(numbers);
    this.#wakeup.wake();
  }

  /** A gate holds a newer generation of the stack back, or does no longer. Say so before `want`. */
  hold(stackId: string, held: boolean): void {
    this.#target.hold(stackId, held);
  }

  /**
   * Sets what the agent should have of a stack and marks it for sending; undefined: nothing any more. A gate that has closed
   * takes nothing back that was told already.
   */
  want(stackId: string, desired: Desired | undefined, { send = true }: { readonly send?: boolean } = {}): void {
    if (desired === undefined) {
      this.#target.forget(stackId);
      this.#dirty.delete(stackId);
      this.#received.delete(stackId);
    } else if (this.#target.set(stackId, desired) && send) this.#markDirty(stackId);
  }

  /** Queues Welcome and what follows it: nothing when the root digests are equal, else a listing or the buckets. */
  welcome(
    held: { readonly rootDigest: Uint8Array; readonly entries: number },
    position: Position,
    make: (mode: SyncMode) => MessageInitShape<typeof WelcomeSchema>,
  ): void {
    this.#position = position;
    const mode = this.#target.equals(held) ? SyncMode.UP_TO_DATE : held.entries === 0 ? SyncMode.SNAPSHOT : SyncMode.BUCKETS;
    this.#dirty.clear(); // what changed while the target state was read is part of the comparison
    this.#push({ case: 'welcome', value: make(mode) });
    this.#open = true;
    if (mode === SyncMode.SNAPSHOT) this.#beginListing([...this.#target.stackIds]);
    else if (mode === SyncMode.BUCKETS) this.#askForBuckets();
  }

  /** The agent's heartbeat: two mismatches in a row while nothing is under way start a repair. Returns true then. */
  compare(rootDigest: Uint8Array): boolean {
    const quiet = this.#dirty.size === 0 && this.#frames.unacked.length === 0 && this.#listing === 'none';
    if (!quiet || Buffer.compare(rootDigest, this.#target.digest.root()) === 0) {
      this.#mismatches = 0;
      return false;
    }
    if (++this.#mismatches < 2) return false;
    this.#mismatches = 0;
    this.#askForBuckets();
    return true;
  }

  /**
   * The agent's entries of differing buckets: what differs is sent, what neither side wants is told as absent. Returns those
   * that are newer than what a closed gate leaves: received while it was open, and the report of it was lost.
   */
  buckets({ buckets, entries, more }: BucketEntries): HeldEntry[] {
    const ahead: HeldEntry[] = [];
    for (const entry of entries) {
      this.#bucketsSeen.set(entry.stackId, entry.generation);
      const desired = this.#target.get(entry.stackId);
      const digest = desired && this.#target.digest.get(entry.stackId);
      if (entry.manifestDigest.length > 0) this.#received.set(entry.stackId, entry.manifestDigest);
      const generation = desired?.kind === 'tombstone' ? undefined : (desired?.generation ?? 0n);
      if (this.#target.isHeld(entry.stackId) && generation !== undefined && entry.generation > generation) ahead.push(entry);
      else if (!desired) this.#absent.add(entry.stackId);
      else if (!digest || Buffer.compare(digest, entry.digest) !== 0) this.#markDirty(entry.stackId);
    }
    if (this.#absent.size > MAX_ABSENT) this.end('slow consumer');
    if (more) return ahead;
    for (const bucket of buckets) {
      for (const { stackId } of this.#target.digest.entries(bucket))
        if (!this.#bucketsSeen.has(stackId)) this.#markDirty(stackId);
    }
    this.#bucketsSeen = new Map();
    this.#listing = 'sending';
    this.#wakeup.wake();
    return ahead;
  }

  /** The agent said it has received this manifest of the stack: a base for deltas. */
  received(stackId: string, manifestDigest: Uint8Array): void {
    if (manifestDigest.length > 0) this.#received.set(stackId, manifestDigest);
    else this.#received.delete(stackId);
  }

  /**
   * An upsert was not taken: it is sent again without the base it named, at once when only the base was missing, else
   * when the agent wants it and never sooner than `MIN_RETRY_MS`. One wait a stack; a newer change does not wait.
   */
  nack({ stackId, code, retryAfterMs }: Nack, clock: Clock): void {
    if (code === NackCode.BASE_UNKNOWN || code === NackCode.DIGEST_MISMATCH) this.#received.delete(stackId);
    const again = () => {
      this.#resting.delete(stackId);
      if (this.#target.get(stackId)) this.#markDirty(stackId);
    };
    const leastMs = code === NackCode.BASE_UNKNOWN ? 0 : MIN_RETRY_MS;
    const waitMs = Math.min(Math.max(retryAfterMs, leastMs), MAX_RETRY_MS);
    if (waitMs === 0) again();
    else if (!this.#resting.has(stackId)) {
      this.#resting.add(stackId);
      clock.sleep(waitMs, this.signal).then(again, () => undefined); // ends with the session
    }
  }

  /** Queues a control frame. Past the bound the session ends as a slow consumer. */
  push(body: Body): void {
    this.#push(body);
  }

  /** Tells new settings. */
  configure(config: SessionConfig): void {
    this.#push({ case: 'config', value: config });
  }

  /** Position the target state now stands for. */
  advance(position: Position): void {
    this.#position = position;
  }

  get position(): Position {
    return this.#position;
  }

  /** Ends the session after this last frame. */
  leave(goAway: GoAway): void {
    if (this.#goAway) return;
    this.#goAway = goAway;
    this.#wakeup.wake();
  }

  /** Asks the agent to open another session; this one goes on until then. */
  leaveWhenReplaced(goAway: GoAway): void {
    this.#push({ case: 'goAway', value: goAway });
  }

  /** Ends the session now. */
  end(reason: string): void {
    this.#ended.abort(new Error(reason));
  }

  /** True when `next` would return a frame. */
  ready(): boolean {
    if (!this.#open) return false; // nothing may overtake Welcome
    if (this.#goAway || this.#control.length > 0) return true;
    if (this.#frames.isFull) return false;
    return this.#absent.size > 0 || this.#dirty.size > 0 || this.#listing === 'sending';
  }

  /** Resolves when there may be something to send, at an acknowledgement, or rejects when `signal` aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    await this.#wakeup.wait(signal);
  }

  /** Wakes whoever waits, for instance after the transport changed. */
  wake(): void {
    this.#wakeup.wake();
  }

  /** Makes the next frame: control first, then one absent stack, then one dirty stack. Undefined when there is nothing to say now. */
  async next(): Promise<Frame | undefined> {
    if (!this.#open || this.signal.aborted) return undefined;
    const control = this.#control.shift();
    if (control) return this.#frame(control);
    if (this.#goAway) {
      const frame = this.#frame({ case: 'goAway', value: this.#goAway });
      this.end('told to go away');
      return frame;
    }
    if (this.#frames.isFull) return undefined;
    for (const stackId of this.#absent) {
      this.#absent.delete(stackId);
      if (!this.#target.get(stackId)) return this.#frame({ case: 'absent', value: { stackId } });
    }
    for (const stackId of this.#dirty) {
      this.#dirty.delete(stackId);
      const bytes = await this.#stackFrame(stackId).catch((error: unknown) => {
        this.#dirty.add(stackId); // a poller comes back for it
        throw error;
      });
      if (bytes) return this.#frames.make(bytes);
    }
    if (this.#listing !== 'sending') return undefined;
    this.#listing = 'none';
    return this.#frame({ case: 'snapshotEnd', value: { rootDigest: this.#target.digest.root(), revision: this.#position } });
  }

  async #stackFrame(stackId: string): Promise<Uint8Array | undefined> {
    const desired = this.#target.get(stackId);
    if (!desired) return undefined;
    if (desired.kind === 'tombstone') {
      return encodeBody({ case: 'tombstone', value: { ...tombstoneOf(stackId, desired), revision: this.#position } });
    }
    const head = await this.#heads.find(stackId, desired.generation);
    if (!head) return undefined;
    return await this.#heads.frame(head, { base: this.#received.get(stackId), paused: desired.paused });
  }

  #frame(body: Body): Frame {
    return this.#frames.make(encodeBody(body));
  }

  #push(body: Body): void {
    if (this.#control.length >= MAX_CONTROL) {
      this.end('slow consumer');
      return;
    }
    this.#control.push(body);
    this.#wakeup.wake();
  }

  #markDirty(stackId: string): void {
    this.#dirty.add(stackId);
    this.#wakeup.wake();
  }

  #askForBuckets(): void {
    this.#listing = 'waiting for buckets';
    this.#bucketsSeen = new Map();
    this.#push({ case: 'buckets', value: { digests: this.#target.digest.bucketDigests() } });
  }

  #beginListing(stackIds: readonly string[]): void {
    this.#push({ case: 'snapshotBegin', value: { entries: stackIds.length } });
    for (const stackId of stackIds) this.#dirty.add(stackId);
    this.#listing = 'sending';
    this.#wakeup.wake();
  }
}
