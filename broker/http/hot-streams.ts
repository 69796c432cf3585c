import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { createContextValues } from '@connectrpc/connect';
import type { UniversalHandler } from '@connectrpc/connect/protocol';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { callKey, callOf, principalKey } from './context.ts';
import type { Gate } from './gate.ts';
import { type HotMethod, type HotStream, isHotRequest, openHotStream, refuseHotStream } from './grpc-stream.ts';
import { errorBodyOf, translate } from './rpc-errors.ts';

/** The hot streams of the port. */
export interface HotStreams {
  /** Those that are open. */
  readonly streams: ReadonlySet<HotStream>;
  /** False when the stream is not for a hot method. */
  take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean;
}

/** What hot streams need. */
export interface HotStreamsDeps {
  readonly methods: readonly HotMethod[];
  readonly gate: Gate;
  /** Handlers by path: they serve the same methods to clients of other protocols. */
  readonly handlers: ReadonlyMap<string, UniversalHandler>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly newId: () => string;
}

/** Throws when a hot method has no handler for the other protocols. */
export function createHotStreams({ methods, gate, handlers, clock, log, newId }: HotStreamsDeps): HotStreams {
  const served = new Map(methods.map((hot) => [hot.path, { hot, method: handlerOf(handlers, hot.path).method }]));
  const streams = new Set<HotStream>();

  async function open(path: string, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    const { hot, method } = served.get(path) as NonNullable<ReturnType<typeof served.get>>;
    const bodyOf = (error: unknown) => errorBodyOf(translate(error, method, undefined, log));
    try {
      const call = callOf(headers, stream.session?.socket.remoteAddress, newId);
      const values = createContextValues().set(callKey, call);
      await gate.admit(method, headersOf(headers), values);
      if (stream.destroyed) return;
      const opened = openHotStream(hot, stream, headers, { principal: values.get(principalKey), call, bodyOf }, clock);
      if (opened.signal.aborted) return;
      streams.add(opened);
      opened.signal.addEventListener('abort', () => streams.delete(opened), { once: true });
    } catch (error) {
      refuseHotStream(stream, bodyOf(error));
    }
  }

  return {
    streams,
    take(stream, headers) {
      const path = headers[':path'] ?? '';
      if (!served.has(path) || !isHotRequest(headers)) return false;
      void open(path, stream, headers);
      return true;
    },
  };
}

function handlerOf(handlers: ReadonlyMap<string, UniversalHandler>, path: string): UniversalHandler {
  const handler = handlers.get(path);
  if (!handler) throw new Error(`${path} has no handler for clients of other protocols`);
  return handler;
}

function headersOf(headers: IncomingHttpHeaders): Headers {
  const result = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(':')) result.set(name, Array.isArray(value) ? value.join(', ') : value);
  }
  return result;
}
