import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Metrics } from '#lib/metrics.ts';
import type { Database } from './database.ts';
import type { PlainHandler } from './http/dispatch.ts';

const PING_TIMEOUT_MS = 750;
const CACHE_MS = 2000;

/** The process is alive; never touches the database. */
export const healthz: PlainHandler = (_request, response) => {
  answer(response, 200, 'OK');
};

/** The database answers; looked at every two seconds at most, however often it is asked. */
export function readyz({ db, clock }: { readonly db: Database; readonly clock: Clock }): PlainHandler {
  let last: { readonly atMs: number; readonly problem: Promise<string | undefined> } | undefined;
  const look = async () => {
    try {
      await db.ping(PING_TIMEOUT_MS, new AbortController().signal);
      return undefined;
    } catch (error) {
      return errorText(error);
    }
  };
  return async (_request, response) => {
    if (!last || clock.monotonic() - last.atMs > CACHE_MS) last = { atMs: clock.monotonic(), problem: look() };
    const problem = await last.problem;
    if (problem === undefined) answer(response, 200, 'Ready');
    else answer(response, 503, `database unavailable: ${problem}`);
  };
}

/** Prometheus text. */
export function metricsPage(metrics: Metrics): PlainHandler {
  return async (_request, response) => {
    const text = await metrics.text();
    response.setHeader('content-type', metrics.contentType);
    response.end(text);
  };
}

function answer(response: Parameters<PlainHandler>[1], status: number, text: string): void {
  response.statusCode = status;
  response.setHeader('content-type', 'text/plain; charset=utf-8');
  response.setHeader('cache-control', 'no-store');
  response.end(text);
}
