import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorText } from '#lib/errors.ts';
import type { Answer, Question } from './exchange.ts';
import { endToEnd, upstreamHeaders } from './headers.ts';
import { http1Question } from './listen.ts';
import { answerTo, type ProxyDeps, statusClass } from './proxy.ts';
import { checkRequest } from './request.ts';
import type { UpgradeAnswer } from './send-http1.ts';
import type { Served } from './upstream.ts';

/** Passes a connection on that becomes a WebSocket (RFC 6455): both ways until one side ends. Never rejects. */
export async function proxyWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  deps: ProxyDeps,
  responseTimeoutMs: number,
): Promise<void> {
  const { metrics, log } = deps;
  const gone = new AbortController();
  socket.once('close', () => gone.abort(new Error('the client has gone')));
  socket.on('error', () => undefined); // it closes, too
  const question = http1Question(request);
  const { client, host, method, target, version } = question;
  const line = { client, host, method, path: target.split('?')[0], version };
  const answered = (status: number) => metrics.requests.inc({ version, status: statusClass(status) });
  metrics.open.inc({ version });
  try {
    const { endpoint, answer } = await upgrade(question, deps, responseTimeoutMs, gone.signal);
    try {
      if (answer.kind === 'upgraded') {
        answered(101);
        log.info({ ...line, status: 101, endpoint: endpoint.name }, 'websocket opened');
        socket.write(headText(101, answer.response.statusMessage, answer.response.rawHeaders));
        socket.write(answer.head);
        answer.socket.write(head);
        await Promise.all([pipeline(socket, answer.socket), pipeline(answer.socket, socket)]);
      } else {
        answered(answer.answer.status);
        log.info({ ...line, status: answer.answer.status, endpoint: endpoint.name }, 'request');
        await refused(socket, answer.answer);
      }
    } catch (error) {
      log.info({ ...line, endpoint: endpoint.name, error: errorText(error) }, 'websocket broke off');
      socket.destroy();
    } finally {
      endpoint.open--;
    }
  } catch (error) {
    const [status, code, message] = answerTo(error);
    answered(gone.signal.aborted ? 0 : status);
    log.info({ ...line, status, error: errorText(error) }, 'request');
    refuse(socket, status, JSON.stringify({ code, message }));
  }
  metrics.open.dec({ version });
}

async function upgrade(
  question: Question,
  { upstream, clock }: ProxyDeps,
  responseTimeoutMs: number,
  gone: AbortSignal,
): Promise<Served<UpgradeAnswer>> {
  checkRequest(question);
  using deadline = clock.deadline(responseTimeoutMs, gone);
  const { method, target, host } = question;
  const headers = { ...upstreamHeaders(question.headers, question), connection: 'upgrade', upgrade: 'websocket' };
  try {
    return await upstream.upgrade({ method, target, host, headers, body: undefined }, deadline.signal);
  } catch (error) {
    throw deadline.signal.aborted ? deadline.signal.reason : error;
  }
}

/** An answer of the gateway's own, the last on its connection. */
function refuse(socket: Duplex, status: number, body: string): void {
  const headers = ['content-type', 'application/json', 'content-length', String(Buffer.byteLength(body)), 'connection', 'close'];
  socket.end(headText(status, STATUS_CODES[status], headers) + body, () => socket.destroy());
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
