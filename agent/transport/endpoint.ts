import { readFile } from 'node:fs/promises';
import { getCACertificates } from 'node:tls';
import { BrokkrError, errorText } from '#lib/errors.ts';
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
    ca: url.protocol === 'https:' ? await trusted(options.caFile) : undefined,
    proxy: proxyFromEnv(url.href, env),
  };
}

/** Host and port as a dial target. */
export function hostPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === 'https:' ? '443' : '80')}`;
}

async function trusted(caFile: string | undefined): Promise<readonly string[]> {
  const own = caFile ? [await readText(caFile, 'the ca file')] : [];
  if (own[0] !== undefined && !own[0].includes('-----BEGIN CERTIFICATE-----')) {
    throw new BrokkrError('invalid_request', `${caFile} holds no certificate in PEM form`);
  }
  // Mozilla's list, NODE_EXTRA_CA_CERTS and the machine's own store
  return [...new Set([...own, ...getCACertificates('default'), ...getCACertificates('system')])];
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

const UNKNOWN_ISSUER =
  'the broker certificate is signed by an authority this agent does not trust: set ca_file to its certificate';

/** Codes of failed verifications (OpenSSL X509_V_ERR_*, Node.js documentation "X509 certificate error codes"). */
const CERTIFICATE_CODES: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the broker certificate is self-signed: set ca_file to that certificate to trust it',
  SELF_SIGNED_CERT_IN_CHAIN:
    'the broker certificate chain ends in a self-signed authority this agent does not trust: set ca_file to it',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_ISSUER,
  CERT_HAS_EXPIRED: 'the broker certificate has expired',
  CERT_NOT_YET_VALID: 'the broker certificate is not valid yet: compare the clocks',
  CERT_REVOKED: 'the broker certificate is revoked',
  CERT_SIGNATURE_FAILURE: 'the signature of the broker certificate is wrong',
  CERT_CHAIN_TOO_LONG: 'the broker certificate chain is too long',
  INVALID_CA: 'a certificate in the broker chain may not sign others',
  INVALID_PURPOSE: 'the broker certificate is not meant for servers',
  HOSTNAME_MISMATCH: 'the broker certificate is for another host',
  ERR_TLS_CERT_ALTNAME_INVALID: 'the broker certificate is for another host',
  ERR_SSL_WRONG_VERSION_NUMBER: 'the broker does not speak TLS on this port: use http:// or another port',
};

/** The certificate failure behind an error, with its causes searched. */
export function certificateError(error: unknown): CertificateError | undefined {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const code = 'code' in cause ? String(cause.code) : '';
    const meaning = CERTIFICATE_CODES[code];
    if (!meaning) continue;
    const detail = code === 'ERR_TLS_CERT_ALTNAME_INVALID' && 'reason' in cause ? ` (${String(cause.reason)})` : '';
    return new CertificateError(code, `${meaning}${detail}`, error);
  }
  return undefined;
}
