import { lookup } from 'node:dns/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import type { AddressRule } from './address-rule.ts';
import { type Clock, TimeoutError } from './clock.ts';
import { errorText } from './errors.ts';
import { type ReachFailure, reachFailure } from './reach-failure.ts';
import { abortable } from './signal.ts';

/** Why an attempt to deliver failed; a small closed set, also a metric label. */
export const FAILURE_KINDS = [
  'dns', // the host name does not resolve
  'refused', // nobody listens there
  'unreachable', // no connection in time, as when a network policy drops it, or the network says that there is no way
  'timeout', // connected, and no answer in time
  'tls', // the handshake fails, or the certificate is not acceptable
  'connection', // it broke, or the answer is not HTTP
  'blocked', // the address is not one that webhooks may go to
  'redirect', // 3xx; redirects are not followed
  '4xx',
  '5xx',
  'key', // URL and secrets cannot be decrypted
] as const;

/** One of `FAILURE_KINDS`. */
export type FailureKind = (typeof FAILURE_KINDS)[number];

/** How one attempt ended. */
export type Outcome =
  | { readonly kind: 'delivered'; readonly statusCode: number }
  | {
      readonly kind: 'failed';
      readonly failure: FailureKind;
      /** For people; bounded. */
      readonly message: string;
      readonly statusCode?: number;
      /** What the endpoint asks for, in milliseconds. */
      readonly retryAfterMs?: number;
    };

/** One POST, as it goes out. */
export interface WebhookRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Bound of the whole attempt. */
  readonly timeoutMs: number;
}

/** An address of a host, as `dns.lookup` gives it. */
export interface ResolvedAddress {
  readonly address: string;
  readonly family: number;
}

/** What sending needs. */
export interface SendDeps {
  readonly clock: Clock;
  readonly mayReach: AddressRule;
  /** The setting that `mayReach` is made from, for messages. */
  readonly allowedBy: string;
  /** All addresses of a name; rejects with the codes of `dns.lookup`. */
  readonly resolve: (host: string) => Promise<readonly ResolvedAddress[]>;
}

/** Makes one attempt. Rejects only when `signal` aborts first: then nobody knows whether it arrived. */
export type Send = (request: WebhookRequest, signal: AbortSignal) => Promise<Outcome>;

/** What an attempt waits for, by the failure it is when the time is over. */
const MISSING = {
  dns: 'no address of the host',
  unreachable: 'no connection to the endpoint',
  timeout: 'no answer of the endpoint',
} as const;
type Stage = keyof typeof MISSING;

/** Text of an answer that is read, for the error message. */
const MAX_ANSWER_BYTES = 512;

/** The system's resolver. */
export async function resolveHost(host: string): Promise<readonly ResolvedAddress[]> {
  return await lookup(host, { all: true });
}

/** The same resolver, with `took` told the seconds of each lookup, failed ones included. */
export function timedResolve(
  resolve: SendDeps['resolve'],
  clock: Pick<Clock, 'monotonic'>,
  took: (seconds: number) => void,
): SendDeps['resolve'] {
  return async (host) => {
    const startedMs = clock.monotonic();
    try {
      return await resolve(host);
    } finally {
      took((clock.monotonic() - startedMs) / 1000);
    }
  };
}

/**
 * Posts events. The name is resolved once, every address has to be one that webhooks may reach, and the connection goes
 * to exactly these addresses: a name that changes between check and connection gains nothing. Redirects are not followed.
 * Attempts that need the same name at the same time share the lookup: the system's resolver has four threads in all, and one
 * endpoint whose name is slow must not take them from the others.
 */
export function createSend({ clock, mayReach, allowedBy, resolve }: SendDeps): Send {
  const resolveOnce = sharing(resolve);
  return async ({ url: text, headers, body, timeoutMs }, signal) => {
    using deadline = clock.deadline(timeoutMs, signal);
    let stage: Stage = 'dns';
    try {
      const url = new URL(text);
      const addresses = await abortable(addressesOf(url, resolveOnce), deadline.signal);
      const blocked = addresses.find(({ address }) => !mayReach(address));
      if (blocked) {
        const message = `${url.hostname} is at ${blocked.address}, which webhooks may not reach (${allowedBy})`;
        return { kind: 'failed', failure: 'blocked', message };
      }
      stage = 'unreachable';
      const connected = () => {
        stage = 'timeout';
      };
      const answer = await post(url, { headers, body, addresses, connected }, deadline.signal);
      return await outcomeOf(answer, clock.now());
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof TimeoutError)
        return { kind: 'failed', failure: stage, message: `${MISSING[stage]} within ${timeoutMs} ms` };
      return { kind: 'failed', failure: failureOf(error), message: errorText(error).slice(0, MAX_ANSWER_BYTES) };
    }
  };
}

function sharing(resolve: SendDeps['resolve']): SendDeps['resolve'] {
  const running = new Map<string, ReturnType<typeof resolve>>();
  return (host) => {
    const known = running.get(host);
    if (known) return known;
    const lookup = resolve(host).finally(() => running.delete(host));
    running.set(host, lookup);
    return lookup;
  };
}

async function addressesOf(url: URL, resolve: SendDeps['resolve']): Promise<readonly ResolvedAddress[]> {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const family = isIP(host);
  return family === 0 ? await resolve(host) : [{ address: host, family }];
}

interface Post {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly addresses: readonly ResolvedAddress[];
  readonly connected: () => void;
}

/** Resolves with the head of the answer. A connection of its own for each: none is kept to an address that was fine once. */
function post(url: URL, { headers, body, addresses, connected }: Post, signal: AbortSignal): Promise<IncomingMessage> {
  const [first] = addresses;
  const toResolved: LookupFunction = (_host, options, callback) => {
    if (options.all) callback(null, [...addresses]);
    else callback(null, first?.address ?? '', first?.family ?? 0);
  };
  return new Promise((resolve, reject) => {
    const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const outgoing = request(url, { method: 'POST', headers, agent: false, lookup: toResolved, signal }, resolve);
    outgoing.on('socket', (socket) => socket.once('connect', connected));
    outgoing.on('error', (error) => reject(signal.aborted ? signal.reason : error));
    outgoing.end(body);
  });
}

async function outcomeOf(answer: IncomingMessage, nowMs: number): Promise<Outcome> {
  const statusCode = answer.statusCode ?? 0;
  const said = await beginningOf(answer);
  if (statusCode >= 200 && statusCode < 300) return { kind: 'delivered', statusCode };
  const wait = retryAfterMs(answer.headers['retry-after'], nowMs);
  const failure = statusCode >= 500 ? '5xx' : statusCode >= 400 ? '4xx' : 'redirect';
  const what = failure === 'redirect' ? 'redirects are not followed' : said;
  const message = `the endpoint answered ${statusCode}${what === '' ? '' : `: ${what}`}`;
  return { kind: 'failed', failure, message, statusCode, ...(wait !== undefined && { retryAfterMs: wait }) };
}

/** Milliseconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); undefined when it says nothing. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** Text of an answer until it is long enough, ends, or the time is over; the status counts in each case. */
async function beginningOf(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of answer) {
      parts.push(part);
      size += part.length;
      if (size >= MAX_ANSWER_BYTES) break; // leaving the loop destroys the answer
    }
  } catch {
    // what came before the connection broke is enough
  }
  return Buffer.concat(parts).subarray(0, MAX_ANSWER_BYTES).toString('utf8').replaceAll('\0', '').trim();
}

/** Whatever else breaks a connection is `connection`. */
const KINDS: Partial<Record<ReachFailure, FailureKind>> = {
  nxdomain: 'dns',
  dns: 'dns',
  refused: 'refused',
  unreachable: 'unreachable',
  timeout: 'unreachable', // of the system: nobody answered the connection
  tls: 'tls',
  certificate: 'tls',
};

function failureOf(error: unknown): FailureKind {
  return KINDS[reachFailure(error) ?? 'unknown'] ?? 'connection';
}
