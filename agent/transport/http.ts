import { Agent, type Dispatcher, ProxyAgent, request } from 'undici';
import { dialSocket, portOf } from '#lib/check-network.ts';
import { BrokkrError } from '#lib/errors.ts';
import { failureText } from '#lib/reach-failure.ts';
import { abortable } from '#lib/signal.ts';
import { certificateError, type Endpoint } from './endpoint.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 60_000;

/** An HTTP/1.1 client for one endpoint (with `allowH2` it also speaks HTTP/2); to be closed. */
export function createDispatcher(
  { ca, proxy }: Endpoint,
  { connections, allowH2 = false }: { readonly connections: number; readonly allowH2?: boolean },
): Dispatcher {
  const tls = ca ? { ca: [...ca] } : {};
  // deadlines come from the caller's signal: a held poll is silent for longer than the defaults here allow
  const common = { connections, allowH2, keepAliveTimeout: KEEP_ALIVE_MS, headersTimeout: 0, bodyTimeout: 0 };
  if (proxy) return new ProxyAgent({ uri: proxy, ...common, requestTls: { ...tls, timeout: CONNECT_TIMEOUT_MS } });
  return new Agent({ ...common, connect: { ...tls, timeout: CONNECT_TIMEOUT_MS } });
}

/**
 * Why no connection to the endpoint can be made: tries once. A `CertificateError`, an `unavailable` with the socket's error as its cause, or
 * undefined when one can be made after all. grpc-js reports only a text; this finds the code behind it.
 */
export async function findConnectError(endpoint: Endpoint, signal: AbortSignal): Promise<Error | undefined> {
  try {
    const { host, port } = portOf(endpoint.proxy === undefined ? endpoint.url : new URL(endpoint.proxy));
    (await dialSocket({ host, port }, signal)).destroy();
  } catch (error) {
    signal.throwIfAborted();
    return new BrokkrError('unavailable', `the broker cannot be reached: ${failureText(error)}`, { cause: error });
  }
  return endpoint.ca === undefined ? undefined : await findCertificateError(endpoint, signal);
}

async function findCertificateError(endpoint: Endpoint, signal: AbortSignal): Promise<Error | undefined> {
  const dispatcher = createDispatcher(endpoint, { connections: 1, allowH2: true }); // as the stream does: some servers offer nothing else
  try {
    const { body } = await abortable(request(endpoint.url, { dispatcher, method: 'HEAD', signal }), signal);
    await body.dump();
    return undefined;
  } catch (error) {
    return certificateError(error);
  } finally {
    await dispatcher.destroy();
  }
}
