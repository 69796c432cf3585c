import { jitter } from '#lib/backoff.ts';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { type KubeStatus, statusError } from './errors.ts';
import { createLineSplitter } from './lines.ts';
import { ACCEPT_METADATA, type KubeObject, type ListRequest } from './objects.ts';
import { resourcePath } from './resource.ts';
import type { KubeTransport } from './transport.ts';

/** How long the server keeps a watch open before ending it in order, varied so that watches do not all return at once. */
const WATCH_SECONDS = 450;
/** Bookmarks come about every minute, so silence beyond this means a dead connection. */
const SILENCE_MS = 90_000;
/** The head of the answer must come sooner. */
const HEAD_MS = 30_000;

/** One change as the server tells it. A bookmark carries a resource version and nothing else. */
export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: KubeObject;
}

interface Deps {
  readonly transport: KubeTransport;
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * One watch from `resourceVersion` on, until the server ends it (300–600 s) and this returns. Rejects with a `KubeError` when
 * the server refuses or sends an error (410: the version is too old), with `TimeoutError` after 90 s of silence, with a socket error,
 * with a `RangeError` for an event beyond 8 MiB, or with the signal's reason.
 */
export async function* watchObjects(
  deps: Deps,
  request: ListRequest,
  resourceVersion: string,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent> {
  using silence = watchSilence(deps.clock, signal);
  const { body } = await deps.transport.stream(
    resourcePath(request.resource, request.namespace),
    {
      verb: 'watch',
      query: {
        watch: true,
        resourceVersion,
        allowWatchBookmarks: true,
        timeoutSeconds: jitter(WATCH_SECONDS, 1 / 3, deps.random),
        labelSelector: request.labelSelector,
        fieldSelector: request.fieldSelector,
      },
      headers: { accept: request.content === 'metadata' ? ACCEPT_METADATA : 'application/json' },
    },
    silence.signal,
  );
  silence.heard();
  const split = createLineSplitter();
  try {
    for await (const chunk of body) {
      silence.heard();
      for (const line of split(chunk)) {
        const event = JSON.parse(line) as WatchEvent | { readonly type: 'ERROR'; readonly object: KubeStatus };
        if (event.type === 'ERROR') throw statusError(event.object, 500);
        yield event;
      }
    }
  } catch (error) {
    throw silence.signal.aborted ? silence.signal.reason : error;
  }
}

/** Aborts its signal when nothing was heard for too long. One timer, however many events. */
function watchSilence(clock: Clock, signal: AbortSignal) {
  const controller = new AbortController();
  const stop = new AbortController();
  const onAbort = () => controller.abort(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  let until = clock.monotonic() + HEAD_MS;
  const supervise = async () => {
    for (;;) {
      const left = until - clock.monotonic();
      if (left <= 0) break;
      await clock.sleep(left, stop.signal);
    }
    controller.abort(new TimeoutError('watch was silent for too long'));
  };
  supervise().catch(() => undefined); // ends by dispose
  return {
    signal: controller.signal,
    heard() {
      until = clock.monotonic() + SILENCE_MS;
    },
    [Symbol.dispose]() {
      stop.abort();
      controller.abort(new Error('watch is over')); // closes the connection when the reader stopped early
      signal.removeEventListener('abort', onAbort);
    },
  };
}
