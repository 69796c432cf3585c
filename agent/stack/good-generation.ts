import { clone } from '@bufbuild/protobuf';
import { manifestDigest } from '#lib/digest.ts';
import { ApplyOptionsSchema, OnFailure } from '#proto/brokkr/v1/content_pb.js';
import type { Head } from '../inventory/codec.ts';
import type { FailedGeneration, StackTarget } from './target.ts';

/** Whether a received target has neither been good nor given up yet. */
export function isUnjudged(head: Head, target: StackTarget): boolean {
  if (target.options.paused || !isReceived(head, target)) return false;
  return head.good?.generation !== target.generation && head.failed?.generation !== target.generation;
}

/** Whether a received target may be given up for the good generation before it. */
export function isOnTrial(head: Head, target: StackTarget): boolean {
  return target.options.onFailure === OnFailure.ROLLBACK && head.good !== undefined && isUnjudged(head, target);
}

/** Whether a target was given up: the good generation, or nothing where there is none, is to be applied instead. */
export function isGivenUp(head: Head, target: StackTarget): boolean {
  const { good, failed } = head;
  return failed?.generation === target.generation && (good !== undefined || failed.cutOff === true) && isReceived(head, target);
}

/** What the head says of a target that is given up. Nothing counts as applied: some of it may be in the cluster. */
export function asGivenUp({ generation }: StackTarget, failure: Omit<FailedGeneration, 'generation'>): Partial<Head> {
  const failed = { generation, ...failure };
  return { failed, refusedGeneration: generation, appliedGeneration: 0n, unjudged: false, unconfirmed: false };
}

/** Whether the head is about this target. Generations are compared within one history of the broker only. */
export function isReceived(head: Head, { generation, incarnation }: StackTarget): boolean {
  return head.receivedGeneration === generation && head.incarnation === incarnation;
}

/** What the head says once the target was applied and healthy. */
export function asGood({ generation, deploymentObjectId, manifestDigest, options }: StackTarget): Partial<Head> {
  return { good: { generation, deploymentObjectId, manifestDigest, options }, failed: undefined, unjudged: false };
}

/** Whether the received generation was given up because it cut the agent off. */
export function isCutOff({ failed, receivedGeneration }: Head): boolean {
  return failed?.cutOff === true && failed.generation === receivedGeneration;
}

/** Why the received generation was given up, in words; empty unless it was. */
export function failureOf({ failed, receivedGeneration }: Head): string {
  return failed?.generation === receivedGeneration ? `generation ${failed.generation} failed: ${failed.message}` : '';
}

/** The same once what was good is applied again. */
export function returnOf(head: Head): string {
  return isCutOff(head) ? `rolled back: ${head.failed?.message}` : failureOf(head);
}

/** What is applied in place of a target that cut the agent off when nothing was good before: nothing at all. */
export function nothingOf(goal: StackTarget): StackTarget {
  const options = clone(ApplyOptionsSchema, goal.options);
  options.allowEmpty = true;
  return { ...goal, generation: 0n, manifest: [], manifestDigest: manifestDigest([]), options };
}
