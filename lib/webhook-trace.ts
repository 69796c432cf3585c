import { SpanKind } from '@opentelemetry/api';
import { beginSpanOf, failSpan, type SpanOptions, traceparentOf } from './tracing.ts';
import type { Send, WebhookRequest } from './webhook-send.ts';

/**
 * Makes a span of each attempt whose request has the `traceparent` of its cause; that of the attempt goes out in its place.
 */
export function tracedSend(send: Send): Send {
  return async (request, signal) => {
    const { traceparent, ...headers } = request.headers;
    const traced = beginSpanOf(traceparent, spanOf(headers));
    if (!traced) return await send({ ...request, headers }, signal);
    try {
      const own = { ...request, headers: { ...headers, traceparent: traceparentOf(traced) } };
      const outcome = await traced.run(() => send(own, signal));
      if (outcome.statusCode !== undefined) traced.span.setAttribute('http.response.status_code', outcome.statusCode);
      if (outcome.kind === 'failed') failSpan(traced.span, outcome.failure); // the message may quote what the endpoint said
      return outcome;
    } finally {
      traced.span.end();
    }
  };
}

/** Named by the headers of a delivery: neither its URL nor what it carries is for others to read. */
function spanOf(headers: WebhookRequest['headers']): SpanOptions {
  const delivery = headers['x-brokkr-delivery-id'] ?? '';
  const name = `deliver ${headers['x-brokkr-event-type']}`;
  return { name, kind: SpanKind.CLIENT, attributes: { 'http.request.method': 'POST', 'brokkr.webhook.delivery_id': delivery } };
}
