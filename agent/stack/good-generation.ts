import { OnFailure } from '#proto/brokkr/v1/content_pb.js';
import type { Head } from '../inventory/codec.ts';
import type { StackTarget } from './target.ts';

/** Whether a received target has neither been good nor given up yet. */
export function isUnjudged(head: Head, target: StackTarget): boolean {
  if (target.options.paused || !isReceived(head, target)) return false;
  return head.good?.generation !== target.generation && head.failed?.generation !== target.generation;
}

/** Whether a received target may be given up for the good generation before it. */
export function isOnTrial(head: Head, target: StackTarget): boolean {
  return target.options.onFailure === OnFailure.ROLLBACK && head.good !== undefined && isUnjudged(head, target);
}

/** Whether a target was given up: the good generation is to be applied instead. */
export function isGivenUp(head: Head, target: StackTarget): boolean {
  return head.good !== undefined && head.failed?.generation === target.generation && isReceived(head, target);
}

/** Whether the head is about this target. Generations are compared within one history of the broker only. */
export function isReceived(head: Head, { generation, incarnation }: StackTarget): boolean {
  return head.receivedGeneration === generation && head.incarnation === incarnation;
}

/** What the head says once the target was applied and healthy. */
export function asGood({ generation, deploymentObjectId, manifestDigest, options }: StackTarget): Partial<Head> {
  return { good: { generation, deploymentObjectId, manifestDigest, options }, failed: undefined, unjudged: false };
}

/** Why the received generation was given up, in words; empty unless it was. */
export function failureOf({ failed, receivedGeneration }: Head): string {
  return failed?.generation === receivedGeneration ? `generation ${failed.generation} failed: ${failed.message}` : '';
}
