import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { entryDigest, RootDigest, tombstoneDigest } from '#lib/digest.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { BrokerMessageSchema, type Tombstone } from '#proto/brokkr/v1/sync_pb.js';

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
      /** Of the stack's deletion; '' without one. */
      readonly traceparent: string;
    };

/** A message of the broker without its numbers. */
export type Body = NonNullable<MessageInitShape<typeof BrokerMessageSchema>['body']>;

const POLICIES = {
  delete: DeletionPolicy.DELETE,
  orphan: DeletionPolicy.ORPHAN,
  delete_and_wait: DeletionPolicy.DELETE_AND_WAIT,
} as const;

/** What one agent should have of all its stacks, with the digests that are compared with what it has. */
export class TargetState {
  readonly #desired = new Map<string, Desired>();
  /** Stacks of which a closed gate holds a newer generation back. */
  readonly #held = new Set<string>();
  /** The digests of it all. */
  readonly digest = new RootDigest();

  /** Number of entries and tombstones. */
  get size(): number {
    return this.#desired.size;
  }

  /** Stacks with an entry or a tombstone. */
  get stackIds(): Iterable<string> {
    return this.#desired.keys();
  }

  get(stackId: string): Desired | undefined {
    return this.#desired.get(stackId);
  }

  /** Stacks of which the agent has, or is to have, something. */
  known(): ReadonlySet<string> {
    return new Set([...this.#desired.keys(), ...this.#held]);
  }

  /** True while a gate holds a newer generation of the stack back. */
  isHeld(stackId: string): boolean {
    return this.#held.has(stackId);
  }

  /** A gate holds a newer generation of the stack back, or does no longer. */
  hold(stackId: string, held: boolean): void {
    if (held) this.#held.add(stackId);
    else this.#held.delete(stackId);
  }

  /** Nothing is wanted of the stack any more, not even its removal. */
  forget(stackId: string): void {
    this.#held.delete(stackId);
    this.#desired.delete(stackId);
    this.digest.set(stackId, undefined);
  }

  /** Sets what the agent should have. False when that is what it should have had; a gate that has closed takes nothing back. */
  set(stackId: string, desired: Desired): boolean {
    const told = this.#desired.get(stackId);
    if (desired.kind === 'entry' && told?.kind === 'entry' && told.generation > desired.generation && this.#held.has(stackId))
      return false;
    const digest = digestOf(stackId, desired);
    const known = this.digest.get(stackId);
    this.#desired.set(stackId, desired);
    this.digest.set(stackId, digest);
    return known === undefined || Buffer.compare(known, digest) !== 0;
  }

  /** Whether an agent with this digest over so many stacks has all it should have. */
  equals({ rootDigest, entries }: { readonly rootDigest: Uint8Array; readonly entries: number }): boolean {
    return entries === this.size && (entries === 0 || Buffer.compare(rootDigest, this.digest.root()) === 0);
  }
}

/** The order to remove a stack, with everything but the position it stands for. */
export function tombstoneOf(
  stackId: string,
  { generation, stackName, policy, approved, traceparent }: Extract<Desired, { kind: 'tombstone' }>,
): Omit<Tombstone, '$typeName' | '$unknown' | 'revision'> {
  return { stackId, stackName, generation, policy: POLICIES[policy], approved, traceparent };
}

/** A message without its numbers, as it goes over the wire. */
export function encodeBody(body: Body): Uint8Array {
  return toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { body }));
}

function digestOf(stackId: string, desired: Desired): Uint8Array {
  return desired.kind === 'entry'
    ? entryDigest(stackId, desired.generation, desired.manifestDigest, desired.optionsDigest)
    : tombstoneDigest(stackId, desired.generation, desired.policy);
}
