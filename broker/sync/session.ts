import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { entryDigest, RootDigest, tombstoneDigest } from '#lib/digest.ts';
import { Wakeup } from '#lib/signal.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import {
  BrokerMessageSchema,
  type BucketEntries,
  type GoAway,
  type HeldEntry,
  type Nack,
  NackCode,
  type SessionConfig,
  SyncMode,
  type WelcomeSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import type { Heads } from './heads.ts';
import type { Position } from './store.ts';

/** What an agent should have of one stack. */
export type Desired =
  | {
      readonly kind: 'entry';
      readonly generation: bigint;
      readonly manifestDigest: Uint8Array;
      readonly optionsDigest: Uint8Array;
      /** The stack is paused on this agent; the digest is that of its options so changed. */
      readonly paused: boolean;
    }
  | {
      readonly kind: 'tombstone';
      readonly generation: bigint;
      readonly stackName: string;
      readonly policy: 'delete' | 'orphan' | 'delete_and_wait';
      readonly approved: boolean;
    };

/** A frame ready to be sent: `BrokerMessage` bytes. */
export interface Frame {
  readonly seq: bigint;
  readonly bytes: Uint8Array;
}

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

type Body = NonNullable<MessageInitShape<typeof BrokerMessageSchema>['body']>;

const POLICIES = {
  delete: DeletionPolicy.DELETE,
  orphan: DeletionPolicy.ORPHAN,
  delete_and_wait: DeletionPolicy.DELETE_AND_WAIT,
} as const;
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
  readonly #desired = new Map<string, Desired>();
  readonly #root = new RootDigest();
  /** Manifest digests the agent has said it holds. */
  readonly #received = new Map<string, Uint8Array>();
  readonly #dirty = new Set<string>();
  /** Stacks the agent holds and should not, nor was ever told to remove. */
  readonly #absent = new Set<string>();
  /** Stacks of which a closed gate holds a newer generation back. */
  readonly #held = new Set<string>();
  /** Stacks whose frame was refused and is not to be sent again yet. */
  readonly #resting = new Set<string>();
  readonly #control: Body[] = [];
  readonly #wakeup = new Wakeup();
  readonly #unacked: Frame[] = [];
  readonly #ended = new AbortController();
  #seq = 0n;
  #ack = 0n;
  #listing: 'none' | 'waiting for buckets' | 'sending' = 'none';
  #bucketsSeen = new Map<string, bigint>();
  #goAway: GoAway | undefined;
  #position: Position = { xid: 0n, seq: 0n, nonce: 0n };
  #mismatches = 0;
  #open = false;
  framesIn = 0n;

  constructor(heads: Heads, options: SessionOptions) {
    this.#heads = heads;
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

  /** Number of the last frame made. */
  get seq(): bigint {
    return this.#seq;
  }

  /** Highest frame of the agent taken. */
  get ack(): bigint {
    return this.#ack;
  }

  /** Stacks waiting to be sent. */
  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Frames the agent has not acknowledged. */
  get unacked(): readonly Frame[] {
    return this.#unacked;
  }

  /** Root digest of what the agent should have. */
  root(): Uint8Array {
    return this.#root.root();
  }

  /** Number of entries and tombstones. */
  get entries(): number {
    return this.#desired.size;
  }

  desired(stackId: string): Desired | undefined {
    return this.#desired.get(stackId);
  }

  /** Stacks of which the agent has, or is to have, something. */
  stackIds(): ReadonlySet<string> {
    return new Set([...this.#desired.keys(), ...this.#held]);
  }

  /** True while a gate holds a newer generation of the stack back. */
  isHeld(stackId: string): boolean {
    return this.#held.has(stackId);
  }

  /** Notes the agent's frame numbers; frames up to `ack` need not be sent again. */
  took({ seq, ack }: { readonly seq: bigint; readonly ack: bigint }): void {
    this.framesIn++;
    if (seq > this.#ack) this.#ack = seq;
    while (this.#unacked[0] && this.#unacked[0].seq <= ack) this.#unacked.shift();
    this.#wakeup.wake();
  }

  /** A gate holds a newer generation of the stack back, or does no longer. Say so before `want`. */
  hold(stackId: string, held: boolean): void {
    if (held) this.#held.add(stackId);
    else this.#held.delete(stackId);
  }

  /**
   * Sets what the agent should have of a stack and marks it for sending; undefined: nothing any more. A gate that has closed
   * takes nothing back that was told already.
   */
  want(stackId: string, desired: Desired | undefined, { send = true }: { readonly send?: boolean } = {}): void {
    const told = this.#desired.get(stackId);
    if (desired?.kind === 'entry' && told?.kind === 'entry' && told.generation > desired.generation && this.#held.has(stackId))
      return;
    if (desired === undefined) {
      this.#held.delete(stackId);
      this.#desired.delete(stackId);
      this.#root.set(stackId, undefined);
      this.#dirty.delete(stackId);
      this.#received.delete(stackId);
      return;
    }
    const digest = digestOf(stackId, desired);
    const known = this.#root.get(stackId);
    const same = known !== undefined && Buffer.compare(known, digest) === 0;
    this.#desired.set(stackId, desired);
    this.#root.set(stackId, digest);
    if (send && !same) this.#markDirty(stackId);
  }

  /** Queues Welcome and what follows it: nothing when the root digests are equal, else a listing or the buckets. */
  welcome(
    held: { readonly rootDigest: Uint8Array; readonly entries: number },
    position: Position,
    make: (mode: SyncMode) => MessageInitShape<typeof WelcomeSchema>,
  ): void {
    this.#position = position;
    const same =
      held.entries === this.#desired.size && (held.entries === 0 || Buffer.compare(held.rootDigest, this.#root.root()) === 0);
    const mode = same ? SyncMode.UP_TO_DATE : held.entries === 0 ? SyncMode.SNAPSHOT : SyncMode.BUCKETS;
    this.#push({ case: 'welcome', value: make(mode) });
    this.#open = true;
    if (mode === SyncMode.SNAPSHOT) this.#beginListing([...this.#desired.keys()]);
    else if (mode === SyncMode.BUCKETS) this.#askForBuckets();
  }

  /** The agent's heartbeat: two mismatches in a row while nothing is under way start a repair. Returns true then. */
  compare(rootDigest: Uint8Array): boolean {
    const quiet = this.#dirty.size === 0 && this.#unacked.length === 0 && this.#listing === 'none';
    if (!quiet || Buffer.compare(rootDigest, this.#root.root()) === 0) {
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
      const desired = this.#desired.get(entry.stackId);
      const digest = desired && this.#root.get(entry.stackId);
      if (entry.manifestDigest.length > 0) this.#received.set(entry.stackId, entry.manifestDigest);
      const generation = desired?.kind === 'tombstone' ? undefined : (desired?.generation ?? 0n);
      if (this.#held.has(entry.stackId) && generation !== undefined && entry.generation > generation) ahead.push(entry);
      else if (!desired) this.#absent.add(entry.stackId);
      else if (!digest || Buffer.compare(digest, entry.digest) !== 0) this.#markDirty(entry.stackId);
    }
    if (this.#absent.size > MAX_ABSENT) this.end('slow consumer');
    if (more) return ahead;
    for (const bucket of buckets) {
      for (const { stackId } of this.#root.entries(bucket)) if (!this.#bucketsSeen.has(stackId)) this.#markDirty(stackId);
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
      if (this.#desired.has(stackId)) this.#markDirty(stackId);
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
    if (this.#unacked.length >= this.options.windowFrames) return false;
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
    if (control) return this.#frame(toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { body: control })));
    if (this.#goAway) {
      const frame = this.#frame(
        toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { body: { case: 'goAway', value: this.#goAway } })),
      );
      this.end('told to go away');
      return frame;
    }
    if (this.#unacked.length >= this.options.windowFrames) return undefined;
    for (const stackId of this.#absent) {
      this.#absent.delete(stackId);
      if (!this.#desired.has(stackId)) return this.#frame(encode({ case: 'absent', value: { stackId } }));
    }
    for (const stackId of this.#dirty) {
      this.#dirty.delete(stackId);
      const bytes = await this.#stackFrame(stackId).catch((error: unknown) => {
        this.#dirty.add(stackId); // a poller comes back for it
        throw error;
      });
      if (bytes) return this.#frame(bytes);
    }
    if (this.#listing !== 'sending') return undefined;
    this.#listing = 'none';
    return this.#frame(encode({ case: 'snapshotEnd', value: { rootDigest: this.#root.root(), revision: this.#position } }));
  }

  async #stackFrame(stackId: string): Promise<Uint8Array | undefined> {
    const desired = this.#desired.get(stackId);
    if (!desired) return undefined;
    if (desired.kind === 'tombstone') {
      const { generation, stackName, policy, approved } = desired;
      return encode({
        case: 'tombstone',
        value: { stackId, stackName, generation, policy: POLICIES[policy], approved, revision: this.#position },
      });
    }
    const head = await this.#heads.find(stackId, desired.generation);
    if (!head) return undefined;
    return await this.#heads.frame(head, { base: this.#received.get(stackId), paused: desired.paused });
  }

  /** Numbers a frame: scalar fields in front of the encoded body are one message (protobuf: concatenation merges). */
  #frame(body: Uint8Array): Frame {
    this.#seq++;
    const head = toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { seq: this.#seq, ack: this.#ack }));
    const frame = { seq: this.#seq, bytes: Buffer.concat([head, body]) };
    this.#unacked.push(frame);
    return frame;
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
    this.#push({ case: 'buckets', value: { digests: this.#root.bucketDigests() } });
  }

  #beginListing(stackIds: readonly string[]): void {
    this.#push({ case: 'snapshotBegin', value: { entries: stackIds.length } });
    for (const stackId of stackIds) this.#dirty.add(stackId);
    this.#listing = 'sending';
    this.#wakeup.wake();
  }
}

function digestOf(stackId: string, desired: Desired): Uint8Array {
  return desired.kind === 'entry'
    ? entryDigest(stackId, desired.generation, desired.manifestDigest, desired.optionsDigest)
    : tombstoneDigest(stackId, desired.generation, desired.policy);
}

function encode(body: Body): Uint8Array {
  return toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { body }));
}
