import { errorText } from '#lib/errors.ts';

/** Where an upstream is and whom to trust there. */
export interface Address {
  readonly url: URL;
  /** The only authorities that count, PEM; undefined: those of the system. */
  readonly ca: string | undefined;
}

/** An upstream was not reached: it has seen nothing of the request, which may go to another one. */
export class DialError extends Error {
  override readonly name = 'DialError';
}

/** The error of a connection that did not come about, with its cause in words. */
export function dialError({ url }: Address, error: unknown): DialError {
  return new DialError(`${url.host}: ${reasonOf(error)}`, { cause: error });
}

/** Codes of failed connections and verifications (Node.js documentation, "X509 certificate error codes"). */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'the name does not exist',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by an authority that is not trusted',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an authority that is not trusted',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is signed by an authority that is not trusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed and not trusted',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak tls on this port',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak tls on this port',
  ERR_HTTP2_ERROR: 'it does not speak http/2 on this port',
};

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const words = REASONS[code];
  return words === undefined ? errorText(error) : `${words} (${errorText(error)})`;
}
