import type { ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { WantedKind } from '../apply/content.ts';
import type { WaveGateInput } from '../apply/wave-gate.ts';
import type { Correction } from '../drift/records.ts';
import type { Suspect } from '../drift/suspects.ts';
import type { Engine } from '../engine.ts';
import type { Head } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { ErrorClass } from '../kube/errors.ts';
import type { RemoveAgain } from '../prune/run.ts';
import type { Proof } from './confirmation.ts';
import type { StackTarget } from './target.ts';

/** How a sync ended. */
export type SyncEnd =
  /**
   * As the target says. `again`: when to try again what could not be removed yet; `now` if this apply was what it waited for.
   */
  | {
      readonly kind: 'applied';
      readonly again: 'now' | RemoveAgain;
      readonly kept: readonly ObjectStatus[];
      readonly corrections: readonly Correction[];
      /** What was proven about it; empty when nothing had to be. */
      readonly proven: string;
    }
  /** Nothing was written: kinds are missing or the content is invalid. */
  | {
      readonly kind: 'refused';
      readonly message: string;
      readonly objects: readonly ObjectStatus[];
      readonly missing: readonly WantedKind[];
    }
  /** Something could not be written or read; `class` is that of the failure worth the earliest retry. */
  | {
      readonly kind: 'failed';
      readonly class: ErrorClass;
      readonly message: string;
      readonly objects: readonly ObjectStatus[];
      readonly corrections: readonly Correction[];
    }
  /** The target, applied as a whole, cut the agent off: it is given up. */
  | { readonly kind: 'given_up' }
  /** The options say that nothing is to be applied. */
  | { readonly kind: 'paused' }
  /** Asked to stop at an object border. */
  | { readonly kind: 'stopped' };

/** What a sync works on. */
export interface SyncInput {
  readonly engine: Engine;
  readonly inventory: Inventory;
  /** What the broker wants; an older history of it is forgotten. */
  readonly goal: StackTarget;
  /** What is applied: the goal, or the good generation in its place. */
  readonly target: StackTarget;
  /** See `PruneInput`. */
  readonly restores: boolean;
  /** Has at hand what going back needs; undefined when the target need not be confirmed. Rejects when it cannot be had. */
  readonly prepareReturn: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Proves, after it was written, that the agent is not cut off. */
  readonly prove: (signal: AbortSignal) => Promise<Proof>;
  /** What the head also says once the target is applied. */
  readonly proof: (target: StackTarget) => Partial<Head>;
  /** Objects to apply again though their content did not change, as they were found. */
  readonly suspects: ReadonlyMap<string, Suspect>;
  readonly stop: AbortSignal;
  readonly phase: (phase: Phase) => void;
  readonly healthy: WaveGateInput['healthy'];
}
