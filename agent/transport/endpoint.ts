import { readFile } from 'node:fs/promises';
import { trustedAuthorities } from '#lib/authorities.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { certificateProblem } from '#lib/reach-failure.ts';
import { proxyFromEnv } from '../kube/proxy.ts';

/** Where the broker is and how to reach it. Made anew for every connection, so that rotated files are seen. */
export interface Endpoint {
  /** Base URL, without a trailing slash in its path. */
  readonly url: URL;
  /** The agent's key. Never log it. */
  readonly pak: string;
  /** Trusted certificates in PEM; undefined on plain HTTP. */
  readonly ca: readonly string[] | undefined;
  /** HTTP proxy to go through. */
  readonly proxy: string | undefined;
}

/** What names an endpoint. */
export interface EndpointOptions {
  readonly brokerUrl: string;
  readonly pak: string | undefined;
  /** Read at every connection; wins over `pak`. */
  readonly pakFile: string | undefined;
  /** PEM file of certificates to trust besides the system's. */
  readonly caFile: string | undefined;
}

/** Reads key and certificates. Throws `invalid_request` naming the file that cannot be read. */
export async function readEndpoint(
  options: EndpointOptions,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Endpoint> {
  const url = new URL(options.brokerUrl);
  url.pathname = url.pathname.replace(/\/+$/, '');
  const pak = options.pakFile ? (await readText(options.pakFile, 'the key file')).trim() : options.pak;
  if (!pak) throw new BrokkrError('invalid_request', options.pakFile ? `${options.pakFile} is empty` : 'no agent key is set');
  return {
    url,
    pak,
    ca: url.protocol === 'https:' ? await trustedAuthorities(options.caFile) : undefined,
    proxy: proxyFromEnv(url.href, env),
  };
}

/** Host and port as a dial target. */
export function hostPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === 'https:' ? '443' : '80')}`;
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new BrokkrError('invalid_request', `cannot read ${what}: ${errorText(error)}`, { cause: error });
  }
}

/** The broker's certificate was not accepted. The message says why and what would help. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError';
  /** Code of OpenSSL or Node, for example `CERT_HAS_EXPIRED`. */
  readonly reason: string;

  constructor(reason: string, message: string, cause: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** A server that speaks no TLS is refused like one that is not trusted: the agent never goes on without. */
const NO_TLS = 'ERR_SSL_WRONG_VERSION_NUMBER';

/** The certificate failure behind an error, with its causes searched. */
export function certificateError(error: unknown): CertificateError | undefined {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const code = 'code' in cause ? String(cause.code) : '';
    if (code === NO_TLS) {
      return new CertificateError(code, 'the broker does not speak TLS on this port: use http:// or another port', error);
    }
    const found = certificateProblem(code);
    if (!found) continue;
    const detail = code === 'ERR_TLS_CERT_ALTNAME_INVALID' && 'reason' in cause ? ` (${String(cause.reason)})` : '';
    return new CertificateError(code, `the broker certificate ${found.problem}${detail}: ${found.next}`, error);
  }
  return undefined;
}
