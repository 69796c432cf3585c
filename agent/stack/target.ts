import type { Manifest } from '#lib/object.ts';
import type { ApplyOptions, DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import type { AttemptEvent, Revision, StackHealth, StackStatus } from '#proto/brokkr/v1/sync_pb.js';

/** A stack as this agent is to run it: one generation of its head, complete and verified, without the documents. */
export interface StackTarget {
  /** UUID of the stack. */
  readonly stackId: string;
  /** Name of the stack, for messages. */
  readonly stackName: string;
  /** Generation of the stack head; a higher one supersedes. */
  readonly generation: bigint;
  /** Deployment object of that head. */
  readonly deploymentObjectId: string;
  /** What the stack consists of; its digest has been checked. */
  readonly manifest: Manifest;
  /** 32 bytes. */
  readonly manifestDigest: Uint8Array;
  /** 32 bytes. */
  readonly optionsDigest: Uint8Array;
  /** How to apply. */
  readonly options: ApplyOptions;
  /** 16 bytes; salt of the object digests of this stack. */
  readonly salt: Uint8Array;
  /** When the head was published, in milliseconds by the broker's clock. */
  readonly publishedAtMs: number;
  /** Incarnation of the broker's database that spoke. */
  readonly incarnation: string;
  /** Position of the change in the broker's log. */
  readonly revision: Revision | undefined;
  /** W3C trace context of its taking, or else of its publication; '' when it is not sampled. */
  readonly traceparent: string;
}

/** A stack that leaves this agent. */
export interface StackTombstone {
  /** UUID of the stack. */
  readonly stackId: string;
  /** Name of the stack, for messages. */
  readonly stackName: string;
  /** Generation this follows; a target of a higher generation takes the stack back. */
  readonly generation: bigint;
  /** What happens to its objects. */
  readonly policy: DeletionPolicy;
  /** Whether a user deleted the stack, so that the fuse against mass deletion does not ask again. */
  readonly approved: boolean;
  /** Incarnation of the broker's database that spoke. */
  readonly incarnation: string;
  /** Position of the change in the broker's log. */
  readonly revision: Revision | undefined;
  /** W3C trace context of the stack's deletion; '' when it is not sampled, or when the stack only left. */
  readonly traceparent: string;
}

/** A generation the agent can go back to: it was applied as a whole and healthy. */
export interface GoodGeneration {
  readonly generation: bigint;
  readonly deploymentObjectId: string;
  /** 32 bytes. */
  readonly manifestDigest: Uint8Array;
  /** How it was applied. */
  readonly options: ApplyOptions;
}

/** A generation that failed for good, so that the good one is applied instead. Not tried again: only a newer one is. */
export interface FailedGeneration {
  readonly generation: bigint;
  /** Why. */
  readonly message: string;
  /** It cut the agent off: what it added goes without approval, and without a good generation everything of the stack goes. */
  readonly cutOff?: true;
}

/** What is needed to finish a generation that has to be confirmed, or to go back from it, without the broker. */
export interface WayBack {
  readonly goal: StackTarget;
  /** Of the good generation; undefined when there is none. */
  readonly good: Pick<StackTarget, 'manifest' | 'manifestDigest'> | undefined;
}

/** What an inventory head in the cluster says about a stack; what the agent holds after a restart. */
export interface HeldStack {
  /** UUID of the stack. */
  readonly stackId: string;
  /** Name of the stack, for messages. */
  readonly stackName: string;
  /** Newest generation received and verified. */
  readonly receivedGeneration: bigint;
  /** Manifest digest of the received generation; empty when none was received. */
  readonly manifestDigest: Uint8Array;
  /** Options digest of the received generation; empty when none was received. */
  readonly optionsDigest: Uint8Array;
  /** Generation applied completely, and not written over since by one that failed; 0 when none. */
  readonly appliedGeneration: bigint;
  /** Newest generation refused as a whole; 0 when none. */
  readonly refusedGeneration: bigint;
  /** Newest generation that was applied and healthy. */
  readonly good?: GoodGeneration | undefined;
  /** The generation that was given up for the good one. */
  readonly failed?: FailedGeneration | undefined;
  /** The received generation may have been written, and it is not proven yet that the agent was not cut off by it. */
  readonly unconfirmed?: boolean;
  /** The received generation was neither good nor given up yet: after a restart its target is needed to judge it. */
  readonly unjudged?: boolean;
  /** Deployment object of the received generation. */
  readonly deploymentObjectId: string;
  /** Incarnation of the broker's database it came from. */
  readonly incarnation: string;
  /** Position of the change in the broker's log. */
  readonly revision: Revision | undefined;
  /** Set when the stack is leaving and not yet gone. */
  readonly tombstone?: { readonly policy: DeletionPolicy; readonly generation: bigint };
}

/** Where the documents of a stack come from. */
export interface ContentSource {
  /**
   * YAML texts by source digest (hex), from inline blobs, the disk or the broker: all of those asked for. Throws a
   * `ContentUnavailableError` when they cannot be had now, and the signal's reason once it aborts.
   */
  documents(
    stackId: string,
    generation: bigint,
    digests: readonly string[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, string>>;
  /** The manifest of a generation, from the broker; its digest has been checked. Throws as `documents`. */
  manifest(stackId: string, generation: bigint, digest: Uint8Array, signal: AbortSignal): Promise<Manifest>;
  /**
   * Has these documents (hex digests) and the manifests at hand without the broker from now on, also after a restart of the process, which
   * Secrets do not outlive. Throws as `documents`, and when the disk cannot be written.
   */
  keepWayBack(wayBack: WayBack, digests: readonly string[], signal: AbortSignal): Promise<void>;
  /** What was kept of a stack is not needed any more, if anything was. */
  dropWayBack(stackId: string): Promise<void>;
  /** What was kept of these stacks before the process started. What was kept of others is dropped. Call once. */
  loadWayBacks(stackIds: ReadonlySet<string>): Promise<readonly WayBack[]>;
}

/** Takes what the engine has to say. */
export interface ReportSink {
  /** State of a stack; the newest replaces older ones. */
  status(status: StackStatus): void;
  /** Outcome of an attempt; durable before it resolves. `seq` is 0, the outbox numbers it; `attempt_id` makes it unique. */
  event(event: AttemptEvent): Promise<void>;
  /** Health of stacks: all of them in a `summary`, those that changed in a `transition`. */
  health(items: StackHealth[], kind: 'summary' | 'transition'): void;
}

/** Documents of a stack cannot be had now; trying again later may help. */
export class ContentUnavailableError extends Error {
  override readonly name = 'ContentUnavailableError';
}
