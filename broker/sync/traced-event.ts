import { SpanKind } from '@opentelemetry/api';
import { beginSpanOf, type OpenSpan } from '#lib/tracing.ts';
import type { AttemptEvent } from '#proto/brokkr/v1/sync_pb.js';

/** An event with the span of its way into the database, where its attempt is traced. */
export interface TracedEvent {
  readonly event: AttemptEvent;
  readonly traced: OpenSpan | undefined;
}

/** Begins the span of an event that an agent reported; to be ended when the event is stored. */
export function traceEvent(agentId: string, event: AttemptEvent): TracedEvent {
  const { stackId, generation, eventType, success } = event;
  const attributes = {
    'brokkr.agent.id': agentId,
    'brokkr.stack.id': stackId,
    'brokkr.generation': Number(generation),
    'brokkr.event.type': eventType,
    'brokkr.event.success': success,
  };
  return { event, traced: beginSpanOf(event.traceparent, { name: 'store event', kind: SpanKind.CONSUMER, attributes }) };
}
