import { Agent, type Dispatcher, ProxyAgent, request } from 'undici';
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
 * Why a TLS connection to the endpoint fails: asks once. Returns undefined when the certificate is not the
 * reason. grpc-js reports only a text; this finds the code behind it.
 */
export async function findCertificateError(endpoint: Endpoint, signal: AbortSignal): Promise<Error | undefined> {
  if (endpoint.ca === undefined) return undefined;
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
