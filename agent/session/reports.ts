import { create, toBinary } from '@bufbuild/protobuf';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import {
  type AgentMessage,
  type AttemptEvent,
  NackCode,
  NackSchema,
  type StackHealth,
  StackHealthSchema,
  type StackStatus,
  StackStatusSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import type { ReportSink } from '../stack/target.ts';
import { Coalescer } from './coalescer.ts';
import type { HeldState } from './held.ts';
import type { Outbox } from './outbox.ts';

/** Limits of one report (sync.proto) and of the objects in one status. */
const MAX_ITEMS = 2000;
const MAX_EVENTS = 500;
const MAX_OBJECTS = 100;
const MAX_MESSAGE_CHARS = 1024;
const FAILED: ReadonlySet<Phase> = new Set([Phase.FAILED, Phase.REFUSED, Phase.ROLLED_BACK]);
/** Room in a frame for numbers and the envelope. */
const SLACK_BYTES = 4096;

/** The body of a frame of the agent. */
export type Body = NonNullable<AgentMessage['body']>;

/**
 * What the agent has to say, over all sessions: states and health coalesce by stack and go again after a reconnect until
 * acknowledged, outcomes wait in the outbox. One session at a time takes from it.
 */
export class Reports implements ReportSink {
  readonly #held: HeldState;
  readonly #outbox: Outbox;
  readonly #statuses = new Coalescer<StackStatus>();
  readonly #health = new Coalescer<StackHealth>();
  readonly #failing = new Set<string>();
  readonly #latest = new Map<string, StackStatus>();
  /** Stacks whose target the engine wants again, and whether this session has asked. */
  readonly #needed = new Map<string, { readonly generation: bigint; asked: boolean }>();
  /** Highest event number sent in this session and not yet acknowledged; 0 when none is. */
  #eventsSent = 0n;
  #owner: object | undefined;
  #wake: () => void = () => undefined;

  constructor(deps: { readonly held: HeldState; readonly outbox: Outbox }) {
    this.#held = deps.held;
    this.#outbox = deps.outbox;
  }

  status(status: StackStatus): void {
    const { stackId } = status;
    const received = this.#held.received(stackId);
    const whole = clampStatus(status);
    if (received) {
      whole.receivedGeneration = received.generation;
      whole.receivedManifestDigest = received.manifestDigest;
    }
    if (status.phase === Phase.PRUNED) this.#latest.delete(stackId);
    else this.#latest.set(stackId, whole);
    const failed = FAILED.has(status.phase) || status.health === Health.FAILING;
    if (failed) this.#failing.add(stackId);
    else this.#failing.delete(stackId);
    this.#statuses.set(stackId, whole);
    this.#wake();
  }

  async event(event: AttemptEvent): Promise<void> {
    await this.#outbox.append(event);
    this.#wake();
  }

  health(items: StackHealth[], _kind: 'summary' | 'transition'): void {
    for (const item of items) this.#health.set(item.stackId, item);
    this.#wake();
  }

  /**
   * Asks the broker to send a stack whole again, as a refused delta does: after a restart with nothing changed the engine
   * holds no manifest, and wants one once there is drift to correct. Goes again in every session until the target comes.
   */
  need(stackId: string): void {
    const generation = this.#held.received(stackId)?.generation;
    if (generation === undefined || this.#needed.has(stackId)) return;
    this.#needed.set(stackId, { generation, asked: false });
    this.#wake();
  }

  /** A generation was received and verified. The engine's own status of the stack follows. */
  received(stackId: string, generation: bigint, manifestDigest: Uint8Array, at: StackStatus['changedAt']): void {
    this.#needed.delete(stackId);
    const before = this.#latest.get(stackId);
    this.status(
      create(StackStatusSchema, {
        stackId,
        receivedGeneration: generation,
        receivedManifestDigest: manifestDigest,
        appliedGeneration: before?.appliedGeneration ?? 0n,
        goodGeneration: before?.goodGeneration ?? 0n,
        phase: Phase.RECEIVED,
        health: before?.health ?? Health.UNSPECIFIED,
        ...(at && { changedAt: at }),
      }),
    );
  }

  /** The newest state of every stack, for the health page. */
  get states(): ReadonlyMap<string, StackStatus> {
    return this.#latest;
  }

  /** Stacks that fail. */
  get failing(): number {
    return this.#failing.size;
  }

  /**
   * A session begins: `wake` is called whenever there is something to say, everything unacknowledged goes again. From now
   * on only `owner` may take and acknowledge; what an older session still calls has no effect.
   */
  begin(owner: object, wake: () => void): void {
    this.#owner = owner;
    this.#wake = wake;
    this.#statuses.rewind();
    this.#health.rewind();
    for (const need of this.#needed.values()) need.asked = false;
    this.#eventsSent = 0n;
  }

  /** Whether `owner` is the newest session. */
  ownedBy(owner: object): boolean {
    return owner === this.#owner;
  }

  /** The next frame's body and what to call with its number, or undefined when nothing is to be said. Outcomes, then states, then health. */
  next(owner: object, maxBytes: number): { readonly body: Body; sent(seq: bigint): void } | undefined {
    if (owner !== this.#owner) return undefined;
    return this.#nextNeed() ?? this.#nextEvents(maxBytes) ?? this.#nextStatuses(maxBytes) ?? this.#nextHealth(maxBytes);
  }

  /** The broker has taken our frames up to `seq`. */
  acknowledge(owner: object, seq: bigint): void {
    if (owner !== this.#owner) return;
    for (const status of this.#statuses.acknowledge(seq)) {
      if (status.phase === Phase.PRUNED) this.#held.forget(status.stackId);
    }
    this.#health.acknowledge(seq);
  }

  /** The broker has stored events. */
  async eventsStored(bootId: string, through: bigint): Promise<void> {
    if (through >= this.#eventsSent) this.#eventsSent = 0n;
    await this.#outbox.acknowledge(bootId, through);
    this.#wake();
  }

  #nextNeed() {
    for (const [stackId, need] of this.#needed) {
      if (need.asked) continue;
      const value = create(NackSchema, {
        stackId,
        generation: need.generation,
        code: NackCode.BASE_UNKNOWN,
        detail: 'the target is not held whole',
      });
      const sent = () => {
        need.asked = true;
      };
      return { body: { case: 'nack', value } satisfies Body, sent };
    }
    return undefined;
  }

  #nextEvents(maxBytes: number) {
    if (this.#eventsSent !== 0n) return undefined; // one batch at a time: the next one after its acknowledgement
    const events = this.#outbox.read(0n, MAX_EVENTS, maxBytes - SLACK_BYTES);
    const last = events.at(-1);
    if (!last) return undefined;
    this.#eventsSent = last.seq;
    const value = { $typeName: 'brokkr.v1.EventBatch' as const, bootId: this.#outbox.bootId, events };
    return { body: { case: 'events', value } satisfies Body, sent: () => undefined };
  }

  #nextStatuses(maxBytes: number) {
    const items = fill(this.#statuses, maxBytes, (status) => toBinary(StackStatusSchema, status).length);
    if (items.length === 0) return undefined;
    const value = { $typeName: 'brokkr.v1.StatusReport' as const, items };
    return { body: { case: 'status', value } satisfies Body, sent: sentFrom(this.#statuses, items) };
  }

  #nextHealth(maxBytes: number) {
    const items = fill(this.#health, maxBytes, (health) => toBinary(StackHealthSchema, health).length);
    if (items.length === 0) return undefined;
    const value = { $typeName: 'brokkr.v1.HealthReport' as const, items };
    return { body: { case: 'health', value } satisfies Body, sent: sentFrom(this.#health, items) };
  }
}

function fill<T>(from: Coalescer<T>, maxBytes: number, sizeOf: (value: T) => number): T[] {
  const items: T[] = [];
  let size = SLACK_BYTES;
  for (const [, value] of from.unsent()) {
    size += sizeOf(value) + 8;
    if (items.length >= MAX_ITEMS || (items.length > 0 && size > maxBytes)) break;
    items.push(value);
  }
  return items;
}

function sentFrom<T extends { readonly stackId: string }>(from: Coalescer<T>, items: readonly T[]) {
  const keys = items.map(({ stackId }) => stackId);
  return (seq: bigint) => from.markSent(keys, seq);
}

/** Keeps one status well below the size of a frame, whatever the engine put in. */
function clampStatus(status: StackStatus): StackStatus {
  const objects = status.objects
    .slice(0, MAX_OBJECTS)
    .map((object) => ({ ...object, message: object.message.slice(0, MAX_MESSAGE_CHARS) }));
  return { ...status, message: status.message.slice(0, MAX_MESSAGE_CHARS), objects };
}
