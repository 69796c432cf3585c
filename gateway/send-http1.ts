import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TimeoutError } from '#lib/clock.ts';
import type { Timeouts } from '#lib/timeouts.ts';
import { sendBody } from './body.ts';
import { type Address, dialError } from './dial.ts';
import type { Answer, UpstreamRequest } from './exchange.ts';

/** Idle connections kept to one upstream, and for how long: shorter than common servers keep theirs. */
const MAX_IDLE_CONNECTIONS = 64;
const IDLE_MS = 4000;

/** May be sent again when nobody knows whether they arrived (RFC 9110, 9.2.1). */
const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);

/** What an upstream said to a request to become a WebSocket: yes with the connection, or no with an answer. */
export type UpgradeAnswer =
  | { readonly kind: 'upgraded'; readonly response: IncomingMessage; readonly socket: Duplex; readonly head: Buffer }
  | { readonly kind: 'refused'; readonly answer: Answer };

/** The HTTP/1.1 connections to one upstream. */
export class Http1Connections {
  readonly #address: Address;
  readonly #timeouts: Timeouts;
  readonly #connectTimeoutMs: number;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(address: Address, timeouts: Timeouts, connectTimeoutMs: number) {
    this.#address = address;
    this.#timeouts = timeouts;
    this.#connectTimeoutMs = connectTimeoutMs;
    const options = { keepAlive: true, maxFreeSockets: MAX_IDLE_CONNECTIONS, timeout: IDLE_MS, noDelay: true };
    this.#agent = address.url.protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options);
  }

  /** Sends a request; resolves with the head of the answer. Rejects with a `DialError` when nothing has been sent. */
  async send(request: UpstreamRequest, signal: AbortSignal): Promise<Answer> {
    const { te: _, ...headers } = request.headers;
    // Node would send the body of a GET or DELETE bare, and the upstream would take it for the next request (RFC 9112, 6.3)
    const framing = request.body && headers['content-length'] === undefined ? { 'transfer-encoding': 'chunked' } : {};
    for (;;) {
      const outgoing = this.#request({ ...request, headers: { ...headers, ...framing } }, signal);
      try {
        return await this.#exchange(outgoing, request);
      } catch (error) {
        // an upstream may close an idle connection just as it is used again (RFC 9112, 9.3.1); each time there is one less
        if (signal.aborted || !outgoing.reusedSocket || request.body || !SAFE_METHODS.has(request.method)) throw error;
      }
    }
  }

  /** Asks for a connection that becomes a WebSocket. The headers say so, see RFC 6455, 4.1. */
  async upgrade(request: UpstreamRequest, signal: AbortSignal): Promise<UpgradeAnswer> {
    const outgoing = this.#request(request, signal);
    const answer = new Promise<UpgradeAnswer>((resolve, reject) => {
      outgoing.once('upgrade', (response, socket, head) => resolve({ kind: 'upgraded', response, socket, head }));
      outgoing.once('response', (response) => resolve({ kind: 'refused', answer: answerOf(response, request.method) }));
      outgoing.on('error', reject);
    });
    answer.catch(() => undefined); // waited for below, unless there is no connection
    await this.#connected(outgoing);
    outgoing.end();
    return await answer;
  }

  /** Closes idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  async #exchange(outgoing: ClientRequest, { method, body }: UpstreamRequest): Promise<Answer> {
    const answer = new Promise<Answer>((resolve, reject) => {
      outgoing.once('response', (response) => resolve(answerOf(response, method)));
      outgoing.on('error', reject);
    });
    answer.catch(() => undefined); // waited for below, unless there is no connection
    await this.#connected(outgoing);
    if (body) sendBody(body, outgoing);
    else outgoing.end();
    return await answer;
  }

  #request({ method, target, host, headers }: UpstreamRequest, signal: AbortSignal): ClientRequest {
    const { url } = this.#address;
    const ca = this.#address.ca();
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const trust = ca === undefined ? {} : { ca }; // the agent keeps connections apart by it
    const options = { ...trust, agent: this.#agent, method, path: target, headers: { ...headers, host }, setHost: false, signal };
    return send(url.origin, options);
  }

  /** Resolves once there is a connection to write to. */
  async #connected(outgoing: ClientRequest): Promise<void> {
    const cancel = this.#timeouts.add(this.#connectTimeoutMs, () => outgoing.destroy(new TimeoutError('no connection in time')));
    try {
      await new Promise<void>((resolve, reject) => {
        outgoing.once('error', reject);
        outgoing.once('socket', (socket: Socket) => {
          if (socket.connecting) socket.once(this.#address.url.protocol === 'https:' ? 'secureConnect' : 'connect', resolve);
          else resolve();
        });
      });
    } catch (error) {
      throw dialError(this.#address, error);
    } finally {
      cancel();
    }
  }
}

function answerOf(response: IncomingMessage, method: string): Answer {
  const status = response.statusCode ?? 502;
  const isEmpty = method === 'HEAD' || status === 204 || status === 304;
  if (isEmpty) response.resume();
  return { status, headers: response.headers, body: isEmpty ? undefined : response, trailers: () => response.trailers };
}
