import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll } from 'vitest';

/** A request as it arrived. */
export interface Received {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Monotonic milliseconds. */
  readonly atMs: number;
}

/** An endpoint for webhooks that a test plays. */
export interface WebhookSink {
  readonly url: string;
  readonly port: number;
  /** Oldest first. */
  readonly received: readonly Received[];
  /** Requests that are not answered yet, now and at the worst moment. */
  open(): number;
  mostOpen(): number;
}

/** Answers one request; may keep it waiting. `index` counts from 0. */
export type SinkAnswer = (response: ServerResponse, request: Received, index: number) => void | Promise<void>;

const ok: SinkAnswer = (response) => void response.writeHead(204).end();

/** Starts one on a loopback port, closed at the end of the file; with `tls` over HTTPS. */
export async function startWebhookSink(
  answer: SinkAnswer = ok,
  tls?: { readonly cert: string; readonly key: string },
): Promise<WebhookSink> {
  const received: Received[] = [];
  let open = 0;
  let mostOpen = 0;
  const take = async (request: AsyncIterable<Buffer> & { headers: IncomingHttpHeaders }, response: ServerResponse) => {
    mostOpen = Math.max(mostOpen, ++open);
    response.once('close', () => open--);
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const taken = { headers: request.headers, body: Buffer.concat(parts).toString('utf8'), atMs: performance.now() };
    received.push(taken);
    await answer(response, taken, received.length - 1);
  };
  const listener = (request: never, response: ServerResponse) => void take(request, response).catch(() => response.destroy());
  const server = tls ? createTlsServer(tls, listener as never) : createServer(listener as never);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}/hook`,
    received,
    open: () => open,
    mostOpen: () => mostOpen,
  };
}

/** What `webhook-signature` has to be, worked out by openssl from what arrived. */
export function opensslSignature(secret: string, { headers, body }: Received): string {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64').toString('hex');
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  const mac = execFileSync('openssl', ['dgst', '-sha256', '-mac', 'HMAC', '-macopt', `hexkey:${key}`, '-binary'], {
    input: signed,
  });
  return `v1,${mac.toString('base64')}`;
}
