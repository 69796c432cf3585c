import { readFile } from 'node:fs/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  fromJson,
  type JsonValue,
  type MessageInitShape,
  type MessageShape,
  toJson,
} from '@bufbuild/protobuf';
import { base64Decode } from '@bufbuild/protobuf/wire';
import type { Clock } from '#lib/clock.ts';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import type { BrokerContext } from './contexts.ts';
import { CliError } from './failure.ts';
import { END_STREAM, envelopes, sealed } from './frames.ts';

/** Talks to one broker: RPCs as Connect JSON, REST where its JSON itself is the result. Failures are `CliError`s. */
export interface Client {
  readonly url: string;
  /** One unary call, at most `CALL_TIMEOUT_MS`. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    input: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<MessageShape<O>>;
  /** The messages of a server stream until the broker ends it. */
  watch<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    input: MessageInitShape<I>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<O>>;
  /** One REST call: its body as the broker wrote it, and the path of the next page if there is one. */
  rest(verb: 'GET' | 'POST', path: string, signal: AbortSignal, body?: JsonValue): Promise<RestAnswer>;
}

/** Answer of a REST call. */
export interface RestAnswer {
  readonly body: JsonValue;
  readonly next: string | undefined;
}

/** No single call takes longer; the broker parses 16 MiB of YAML in a fraction of it. */
const CALL_TIMEOUT_MS = 60_000;

/** The client of a broker; reads the certificate authority's file, if there is one, and opens nothing. */
export async function createClient(context: BrokerContext, { clock }: { readonly clock: Clock }): Promise<Client> {
  if (context.ca_file !== undefined) await trust(context.ca_file);
  const url = context.broker_url;
  const authorization: Record<string, string> = context.pak === undefined ? {} : { authorization: `Bearer ${context.pak}` };

  async function send(path: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
    try {
      return await fetch(url + path, { ...init, headers: { ...authorization, ...init.headers }, redirect: 'error', signal });
    } catch (error) {
      signal.throwIfAborted();
      throw unreachable(url, error);
    }
  }

  return {
    url,
    async call(method, input, signal) {
      using deadline = clock.deadline(CALL_TIMEOUT_MS, signal);
      const init = rpc('application/json', JSON.stringify(requestJson(method, input)));
      const response = await send(pathOf(method), init, deadline.signal);
      const json = await readJson(response);
      if (!response.ok) throw rpcError(json, response.status);
      return fromJson(method.output, json, { ignoreUnknownFields: true });
    },
    async *watch(method, input, signal) {
      const message = sealed(0, JSON.stringify(requestJson(method, input)));
      const response = await send(pathOf(method), rpc('application/connect+json', message), signal);
      if (!response.ok || !response.body) throw rpcError(await readJson(response), response.status);
      for await (const { flags, text } of envelopes(guarded(response.body, url, signal))) {
        const json = JSON.parse(text) as JsonValue;
        if ((flags & END_STREAM) === 0) yield fromJson(method.output, json, { ignoreUnknownFields: true });
        else if (isObject(json) && isObject(json.error)) throw rpcError(json.error, response.status);
        else return;
      }
      throw new CliError('unreachable', `the broker at ${url} ended the stream without a word`);
    },
    async rest(verb, path, signal, body) {
      using deadline = clock.deadline(CALL_TIMEOUT_MS, signal);
      const content = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
      const response = await send(path, { method: verb, ...content }, deadline.signal);
      const json = await readJson(response);
      if (!response.ok) throw restError(json, response.status);
      return { body: json, next: nextPage(response.headers.get('link'), url) };
    },
  };
}

/** Adds a file's certificates to those trusted by this process. */
async function trust(path: string): Promise<void> {
  try {
    setDefaultCACertificates([...getCACertificates('default'), await readFile(path, 'utf8')]);
  } catch (error) {
    throw new CliError('invalid_ca', `cannot use the certificates in ${path}`, { cause: error });
  }
}

type AnyMethod = DescMethodUnary<DescMessage, DescMessage> | DescMethodServerStreaming<DescMessage, DescMessage>;

function pathOf(method: AnyMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function requestJson<I extends DescMessage>(method: { readonly input: I }, input: MessageInitShape<I>): JsonValue {
  return toJson(method.input, create(method.input, input));
}

function rpc(contentType: string, body: string | Uint8Array<ArrayBuffer>): RequestInit {
  return { method: 'POST', body, headers: { 'content-type': contentType, 'connect-protocol-version': '1' } };
}

/** The bytes of a body; a broken connection becomes `unreachable`. */
async function* guarded(body: ReadableStream<Uint8Array>, url: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (error) {
    signal.throwIfAborted();
    throw unreachable(url, error);
  }
}

async function readJson(response: Response): Promise<JsonValue> {
  const text = await response.text();
  if (text === '') return {};
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    const type = response.headers.get('content-type') ?? 'no content type';
    const said = type.startsWith('text/plain') ? `: ${text.trim().split('\n', 1)[0]?.slice(0, 200)}` : '';
    const message = `${response.url} answered ${response.status} with ${type}, not JSON${said}`;
    throw new CliError('not_a_broker', message, { hint: 'is this the address of a broker, or of something in front of it?' });
  }
}

function unreachable(url: string, error: unknown): CliError {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const reason = cause instanceof Error ? ((cause as NodeJS.ErrnoException).code ?? cause.message) : String(cause);
  const certificate = /CERT|SIGNATURE|ISSUER|ALTNAME/i.test(reason);
  const hint = certificate
    ? 'trust its certificate authority with --ca-file FILE'
    : 'is it running? start one with brokkr up, or name another with --broker';
  return new CliError('unreachable', `cannot reach the broker at ${url}: ${reason}`, { hint, cause: error });
}

/** An error of Connect; ours is in its details as `brokkr.v1.Error`. */
function rpcError(json: JsonValue, status: number): CliError {
  if (!isObject(json)) return restError(json, status);
  const details = Array.isArray(json.details) ? json.details.filter(isObject) : [];
  const own = details.find(({ type }) => type === ErrorSchema.typeName);
  if (typeof own?.value !== 'string') return restError(json, status);
  const { code, message, details: particulars } = fromBinary(ErrorSchema, base64Decode(own.value));
  return new CliError(code, message, { details: particulars ?? {} });
}

/** An error in the shape `{code, message, details}`. */
function restError(json: JsonValue, status: number): CliError {
  const { code, message, details } = isObject(json) ? json : {};
  const name = typeof code === 'string' ? code : `http_${status}`;
  const text = typeof message === 'string' && message !== '' ? message : `the broker answered ${status}`;
  return new CliError(name, text, { details: isObject(details) ? details : {} });
}

/** The path of `rel="next"` in a Link header (RFC 8288), on this broker whatever host it names. */
function nextPage(link: string | null, url: string): string | undefined {
  const target = /<([^>]*)>\s*;\s*rel="?next"?/.exec(link ?? '')?.[1];
  if (target === undefined) return undefined;
  const { pathname, search } = new URL(target, `${url}/`);
  return pathname + search;
}

function isObject(json: JsonValue | undefined): json is { [key: string]: JsonValue } {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}
