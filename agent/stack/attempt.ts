import { activeTraceparent } from '#lib/tracing.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { attemptEvent } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { OpenAttempt } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';

/** How an attempt ended, for its event. */
export interface AttemptEnd {
  readonly eventType: OpenAttempt['type'] | 'VALIDATE';
  readonly success: boolean;
  readonly message: string;
  readonly objects: readonly ObjectStatus[];
  readonly counts?: Readonly<Record<string, number>>;
}

/**
 * One attempt on a stack. Its id is stored in the inventory before the first write, and after a crash the attempt goes on under the same
 * id, so that every attempt leaves one event and no more.
 */
export interface Attempt extends OpenAttempt {
  readonly startedAtMs: number;
  /** W3C trace context of what it is made for; '' when it is not sampled. */
  readonly traceparent: string;
}

/**
 * Begins an attempt, or goes on with the one a crash or a suspension left open. One that was left open for something else is reported as
 * interrupted first. Store the inventory before writing anything.
 */
export async function beginAttempt(
  engine: Engine,
  inventory: Inventory,
  wanted: Pick<Attempt, 'type' | 'generation' | 'deploymentObjectId' | 'traceparent'>,
): Promise<Attempt> {
  const open = inventory.head.attempt;
  const { traceparent } = wanted;
  const startedAtMs = engine.clock.monotonic();
  if (open && open.type === wanted.type && open.generation === wanted.generation) return { ...open, startedAtMs, traceparent };
  if (open) {
    await endAttempt(
      engine,
      inventory,
      { ...open, startedAtMs, traceparent: '' },
      {
        eventType: open.type,
        success: false,
        message: `superseded before it ended by generation ${wanted.generation}`,
        objects: [],
      },
    );
  }
  return { ...wanted, id: engine.newId(), startedAtMs };
}

/** Reports how an attempt ended and closes it in the inventory, which is still to be stored. */
export async function endAttempt(engine: Engine, inventory: Inventory, attempt: Attempt, end: AttemptEnd): Promise<void> {
  const { id, generation, deploymentObjectId, startedAtMs, traceparent } = attempt;
  await engine.report.event(
    attemptEvent({
      attemptId: id,
      stackId: inventory.head.stackId,
      generation,
      deploymentObjectId,
      eventType: end.eventType,
      success: end.success,
      message: end.message,
      objects: [...end.objects],
      counts: { ...end.counts },
      atMs: engine.clock.now(),
      traceparent: activeTraceparent() ?? traceparent,
      durationMs: Math.round(engine.clock.monotonic() - startedAtMs),
    }),
  );
  inventory.head = { ...inventory.head, attempt: undefined };
}

/** The attempt as the inventory keeps it. */
export function openAttempt({ id, generation, type, deploymentObjectId }: Attempt): OpenAttempt {
  return { id, generation, type, deploymentObjectId };
}
