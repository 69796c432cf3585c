import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import type { Engine } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { ErrorClass } from '../kube/errors.ts';
import type { Priority } from '../kube/limiter.ts';
import type { ObjectMeta, ObjectRef } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import type { StackIdentity } from '../stack-identity.ts';
import type { PlannedObject } from './plan.ts';

/**
 * What an apply did to an object. `adopted`: it was there before and not ours; `moved`: another stack of this agent had it; `recreated`:
 * deleted and created anew.
 */
export type ApplyResult = 'created' | 'configured' | 'unchanged' | 'adopted' | 'moved' | 'recreated';

/**
 * What a reader of the event should know about an apply. `replaced`: another object had taken the name of ours; `immutable`: fields that
 * made the object be created anew; `forced`: fields taken from their managers; `taken_over`: all that managers owned was taken over;
 * `yielded`: fields left to their managers; `handover`: another stack of this agent gave the object up.
 */
export interface Note {
  readonly reason: 'replaced' | 'immutable' | 'handover' | 'forced' | 'taken_over' | 'yielded';
  readonly managers: readonly string[];
  readonly fields: readonly string[];
}

/** How the apply of one object ended. */
export type Outcome =
  | {
      readonly kind: 'applied';
      readonly result: ApplyResult;
      readonly entry: InventoryEntry;
      readonly notes: readonly Note[];
    }
  | { readonly kind: 'failed'; readonly class: ErrorClass; readonly status: ObjectStatus }
  /** Not sent: the sync was asked to stop, or the server does not answer. */
  | { readonly kind: 'skipped' };

/** An outcome that is a failure. */
export type Failure = Extract<Outcome, { kind: 'failed' }>;

/** One sync's circumstances. */
export interface ApplyRun {
  readonly engine: Engine;
  readonly identity: StackIdentity;
  readonly options: ApplyOptions;
  /** The inventory before this sync. */
  readonly before: ReadonlyMap<string, InventoryEntry>;
  /** What was seen of objects that look changed, by key; undefined: the object is gone. */
  readonly seen: Map<string, ObjectMeta | undefined>;
  /** Groups whose definitions were applied in this sync: their paths may take a moment to be served. */
  readonly freshGroups: Set<string>;
  /** Objects whose deletion is not over, by key, with what to say of them: nothing is sent to them. */
  readonly terminating: ReadonlyMap<string, ObjectStatus>;
  /** Called as soon as an object is applied. */
  readonly onApplied: (entry: InventoryEntry) => void;
  /** Ends the sync at object borders: nothing new is sent, nothing is waited for. */
  readonly stop: AbortSignal;
  /** Of the calls: corrections let everything else go first. */
  readonly priority: Priority;
}

/** Whether the server has stopped answering: the rest of the attempt is given up. */
export function isUnreachable({ engine }: ApplyRun): boolean {
  return engine.kube.transport.isDown;
}

/** Where an object is. */
export function refOf(object: PlannedObject, resource: Resource): ObjectRef {
  return { resource, namespace: object.namespaced ? object.namespace : undefined, name: object.name };
}

/** The live object's metadata, as the agent itself may read it. */
export async function readMetadata(
  { engine, priority }: ApplyRun,
  ref: ObjectRef,
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  return await engine.kube.limiter.run(() => engine.kube.findMetadata(ref, signal), priority, signal);
}
