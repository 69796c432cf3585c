import pg from 'pg';
import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable, aborted } from '#lib/signal.ts';

/**
 * Called for every notification with its payload, and with undefined after every (re)connect: then anything may have
 * been missed, so read the state again. Must not throw and must not wait.
 */
export type OnNotify = (payload: string | undefined) => void;

interface Deps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  readonly config: pg.ClientConfig;
}

/** Every so often the connection notifies itself; an answer later than the second figure means it is dead. */
const HEALTH_EVERY_MS = 10_000;
const HEALTH_ANSWER_MS = 5_000;
const RECONNECT = { baseMs: 200, capMs: 5_000 };

/**
 * Listens on `channel` with a connection of its own until `signal` aborts, then returns. A lost connection is made
 * again with backoff, for ever: losing notifications must only ever cost time.
 */
export async function listenForever(channel: string, onNotify: OnNotify, deps: Deps, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await listenOnce(
        channel,
        () => {
          attempt = 0;
        },
        onNotify,
        deps,
        signal,
      );
    } catch (error) {
      if (signal.aborted) return;
      deps.log.warn({ channel, error: errorText(error) }, 'notification connection lost, connecting again');
    }
    await deps.clock.sleep(backoffMs(attempt, RECONNECT, deps.random) + 20, signal).catch(() => undefined);
  }
}

/** Rejects when the connection fails, returns when `signal` aborts. */
async function listenOnce(
  channel: string,
  onConnected: () => void,
  onNotify: OnNotify,
  deps: Deps,
  signal: AbortSignal,
): Promise<void> {
  const client = new pg.Client(deps.config);
  const broken = new Promise<never>((_, reject) => {
    client.on('error', reject);
    client.on('end', () => reject(new Error('connection ended')));
  });
  broken.catch(() => undefined);
  let answered: (() => void) | undefined;
  const health = `${channel}_health`;
  client.on('notification', (message) => {
    if (message.channel === channel) onNotify(message.payload ?? '');
    else if (message.payload === String(message.processId)) answered?.();
  });
  try {
    await abortable(client.connect(), signal);
    await client.query(`listen "${channel}"`);
    await client.query(`listen "${health}"`);
    onConnected();
    onNotify(undefined);
    for (;;) {
      await Promise.race([deps.clock.sleep(HEALTH_EVERY_MS, signal), broken]);
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      using deadline = deps.clock.deadline(HEALTH_ANSWER_MS, signal);
      const sent = client.query('select pg_notify($1, pg_backend_pid()::text)', [health]);
      await abortable(Promise.race([Promise.all([sent, answer]), broken]), deadline.signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    void client.end().catch(() => undefined);
  }
  await aborted(signal);
}
