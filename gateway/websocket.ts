import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Answer } from './exchange.ts';
import { endToEnd, upstreamHeaders } from './headers.ts';
import type { Upstream } from './upstream.ts';

/** Passes a connection on that becomes a WebSocket (RFC 6455): both ways until one side ends. Never rejects. */
export async function proxyWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  { upstream, log }: { readonly upstream: Upstream; readonly log: Logger },
): Promise<void> {
  const gone = new AbortController();
  socket.once('close', () => gone.abort(new Error('the client has gone')));
  socket.on('error', () => undefined); // it closes, too
  const host = request.headers.host ?? '';
  const client = request.socket.remoteAddress;
  const headers = { ...upstreamHeaders(request.headers, { client, host }), connection: 'upgrade', upgrade: 'websocket' };
  const target = request.url ?? '/';
  const line = { client, host, method: 'GET', path: target.split('?')[0], version: '1.1' };
  try {
    const { endpoint, answer } = await upstream.upgrade({ method: 'GET', target, host, headers, body: undefined }, gone.signal);
    try {
      if (answer.kind === 'upgraded') {
        log.info({ ...line, status: 101, endpoint: endpoint.name }, 'websocket opened');
        socket.write(headText(101, answer.response.statusMessage, answer.response.rawHeaders));
        socket.write(answer.head);
        answer.socket.write(head);
        await Promise.all([pipeline(socket, answer.socket), pipeline(answer.socket, socket)]);
      } else {
        log.info({ ...line, status: answer.answer.status, endpoint: endpoint.name }, 'request');
        await refused(socket, answer.answer);
      }
    } finally {
      endpoint.open--;
    }
  } catch (error) {
    log.info({ ...line, error: errorText(error) }, 'websocket broke off');
    if (!socket.destroyed && socket.writable)
      socket.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
    socket.destroy();
  }
}

async function refused(socket: Duplex, { status, headers, body }: Answer): Promise<void> {
  const { 'content-length': _, ...kept } = endToEnd(headers);
  const lines = Object.entries({ ...kept, connection: 'close' }).flatMap(([name, value]) =>
    [value].flat().flatMap((each) => [name, String(each)]),
  );
  socket.write(headText(status, '', lines));
  if (body) await pipeline(body, socket);
  else socket.end();
}

/** The first lines of an answer; `raw` has names and values in turn. */
function headText(status: number, message: string | undefined, raw: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${message ?? ''}\r\n`;
  for (let at = 0; at + 1 < raw.length; at += 2) text += `${raw[at]}: ${raw[at + 1]}\r\n`;
  return `${text}\r\n`;
}
