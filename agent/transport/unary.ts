import { type DescMessage, fromJson, type JsonValue, type MessageShape } from '@bufbuild/protobuf';
import { type Dispatcher, request } from 'undici';
import { BrokkrError } from '#lib/errors.ts';
import type { Endpoint } from './endpoint.ts';
import { refusalError } from './failure.ts';
import { MAX_MESSAGE_BYTES } from './wire.ts';

/** A response carries many frames of up to 256 KiB, base64 in JSON. */
const MAX_RESPONSE_BYTES = 16 * MAX_MESSAGE_BYTES;

/**
 * One unary call in Connect JSON (connectrpc.com, "Connect Protocol Reference"). `method` is `package.Service/Method`, `text`
 * the request in JSON. Rejects with `BrokkrError` when somebody answered, with the socket's error otherwise.
 */
export async function callUnary<A extends DescMessage>(
  dispatcher: Dispatcher,
  { url, pak }: Endpoint,
  method: string,
  text: string,
  answer: A,
  signal: AbortSignal,
): Promise<MessageShape<A>> {
  const target = new URL(url);
  target.pathname = `${url.pathname.replace(/\/$/, '')}/${method}`;
  const headers = { 'content-type': 'application/json', 'connect-protocol-version': '1', authorization: pak };
  const response = await request(target, { dispatcher, method: 'POST', headers, body: text, signal });
  const body = await readText(response.body, signal);
  const json = parse(body);
  if (response.statusCode === 200 && json !== undefined) return fromJson(answer, json, { ignoreUnknownFields: true });
  throw refused(response.statusCode, json, response.headers['retry-after']?.toString(), body);
}

async function readText(body: Dispatcher.ResponseData['body'], signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    bytes += chunk.length;
    if (bytes > MAX_RESPONSE_BYTES)
      throw new BrokkrError('payload_too_large', `the answer is larger than ${MAX_RESPONSE_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}

/** Status codes of the Connect protocol by name (connectrpc.com, "Connect Protocol Reference", error codes). */
const CODES: readonly string[] = [
  'ok',
  'canceled',
  'unknown',
  'invalid_argument',
  'deadline_exceeded',
  'not_found',
  'already_exists',
  'permission_denied',
  'resource_exhausted',
  'failed_precondition',
  'aborted',
  'out_of_range',
  'unimplemented',
  'internal',
  'unavailable',
  'data_loss',
  'unauthenticated',
];

interface ConnectError {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly { readonly type?: string; readonly value?: string }[];
}

function refused(status: number, json: JsonValue | undefined, retryAfter: string | undefined, text: string): BrokkrError {
  const error = (typeof json === 'object' && json !== null && !Array.isArray(json) ? json : {}) as ConnectError;
  if (!error.code) {
    const name = status === 401 ? 'unauthorized' : status === 429 ? 'too_many_requests' : 'unavailable';
    return new BrokkrError(name, `something other than the broker answered with HTTP ${status}: ${text.slice(0, 200)}`);
  }
  const detail = error.details?.find(({ type }) => type === 'brokkr.v1.Error')?.value;
  return refusalError({
    status: CODES.indexOf(error.code),
    message: error.message ?? '',
    detail: detail === undefined ? undefined : Buffer.from(detail, 'base64'),
    retryAfter,
  });
}
