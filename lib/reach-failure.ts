import { TimeoutError } from './clock.ts';
import { BrokkrError, errorText } from './errors.ts';

/** Why something at the other end of the network could not be used. A small closed set: usable as a metric label. */
export type ReachFailure =
  /** No connection. */
  | 'nxdomain' // the name does not exist
  | 'dns' // no server of names answers
  | 'refused' // nobody listens there
  | 'unreachable' // there is no way there, or something on it says no
  | 'timeout' // no answer at all
  | 'reset' // cut after it was made
  /** A connection, and no agreement on how to use it. */
  | 'tls' // one side wants TLS and the other has none, or the handshake fails
  | 'certificate' // not trusted, not valid now, or for another host
  | 'protocol' // something else listens there
  /** An answer that says no. */
  | 'authentication' // key, password or token
  | 'forbidden' // known, and not allowed
  | 'status' // an HTTP status of failure
  | 'database_missing'
  | 'schema' // of the database: cannot be used or made
  | 'version' // too old
  | 'unavailable' // it answers, and is starting, stopping or full
  /** Nothing was asked. */
  | 'configuration'
  | 'unknown';

/** What to look at next, for each failure. */
const NEXT_STEPS: Readonly<Record<ReachFailure, string>> = {
  nxdomain: 'compare the name with that of the Service or host; in another namespace a Service is called NAME.NAMESPACE',
  dns: 'look whether the DNS servers of /etc/resolv.conf answer (check dns NAME), and allow UDP and TCP 53 to them',
  refused: 'compare the port, and look whether the process behind it runs and is ready',
  unreachable: 'look at routes, and at firewalls and policies that reject instead of dropping',
  timeout: 'look for a NetworkPolicy, security group or firewall on the way that does not allow this port',
  reset: 'look at what is in between: proxies, meshes, load balancers; and whether the other side restarts',
  tls: 'compare http with https, or sslmode, and the port: one side speaks TLS and the other does not',
  certificate: 'look at the certificate of the other side',
  protocol: 'compare http with https, and the port: something else answers there',
  authentication: 'compare the key, password or token with what the other side knows; it may have been rotated or revoked',
  forbidden: 'grant the right that the message names',
  status: 'the network is fine: look at the log of the process that answered',
  database_missing: 'create the database, or correct its name in DATABASE_URL',
  schema: 'grant usage of the schema, or create on the database, to that user; or correct BROKKR__DATABASE__SCHEMA',
  version: 'upgrade the server',
  unavailable: 'look at the log of the server: it starts, stops or is full',
  configuration: 'correct the setting that the message names',
  unknown: 'look at the logs of both sides',
};

/** A failure whose class no error code tells. */
export class ReachError extends Error {
  override readonly name = 'ReachError';
  readonly failure: ReachFailure;
  /** What to look at, where more is known than the failure alone says. */
  readonly next: string | undefined;

  /** `message`: what was seen. */
  constructor(failure: ReachFailure, message: string, options: { readonly next?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.failure = failure;
    this.next = options.next;
  }
}

/** Codes of failures (Node.js documentation, "Common system errors" and "DNS: error codes"; undici, "Errors"; getaddrinfo(3)). */
const FAILURES: Readonly<Record<string, ReachFailure>> = {
  ENOTFOUND: 'nxdomain',
  ENODATA: 'nxdomain',
  EAI_AGAIN: 'dns',
  EAI_FAIL: 'dns',
  ECONNREFUSED: 'refused',
  ENOENT: 'refused', // a Unix socket
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  EACCES: 'unreachable',
  EPERM: 'unreachable', // a packet filter of this machine
  ETIMEDOUT: 'timeout',
  UND_ERR_CONNECT_TIMEOUT: 'timeout',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  ECONNRESET: 'reset',
  ECONNABORTED: 'reset',
  EPIPE: 'reset',
  UND_ERR_SOCKET: 'reset',
  ERR_HTTP2_ERROR: 'protocol', // what came was not HTTP/2
};
const TLS_CODE = /^(ERR_SSL_|ERR_TLS_|ERR_OSSL_|EPROTO$)/;
/** Refusals of Node's HTTP parser: what came was not HTTP. */
const PARSER_CODE = /^HPE_/;

/** The class of a failed connection, found by the codes of the error and its causes; undefined when they do not tell. */
export function reachFailure(error: unknown): ReachFailure | undefined {
  if (error instanceof ReachError) return error.failure;
  if (error instanceof TimeoutError || (error instanceof Error && error.cause instanceof TimeoutError)) return 'timeout';
  const code = errorCode(underlying(error));
  if (isCertificateCode(code)) return 'certificate';
  if (TLS_CODE.test(code)) return 'tls';
  return PARSER_CODE.test(code) ? 'protocol' : FAILURES[code];
}

/** What to look at next after such a failure. */
export function nextStep(failure: ReachFailure, error: unknown): string {
  if (error instanceof ReachError && error.next !== undefined) return error.next;
  return certificateProblem(errorCode(underlying(error)))?.next ?? NEXT_STEPS[failure];
}

/** What an error says, in words where its own are only a code, and never empty. */
export function failureText(error: unknown): string {
  const code = errorCode(error);
  const problem = certificateProblem(code);
  if (problem) return `the certificate ${problem.problem} (${errorText(error)})`;
  return errorText(error) || code || 'no reason given'; // Node's error for several addresses has no text
}

/** What happened and what to look at next, in one line: for logs and for readiness. */
export function explainFailure(error: unknown): string {
  const failure = reachFailure(error);
  return failure === undefined ? failureText(error) : `${failureText(error)} (${failure}): ${nextStep(failure, error)}`;
}

/** A stable name for a failure, for logs: its class, or the name of an error of ours; `unknown` for what is neither. */
export function failureCode(error: unknown): string {
  return reachFailure(error) ?? (error instanceof BrokkrError ? error.code : 'unknown');
}

/** The codes of our own errors say nothing about the network. */
function underlying(error: unknown): unknown {
  return error instanceof BrokkrError ? error.cause : error;
}

/** The code of an error, or of the nearest cause that has one; empty without. */
export function errorCode(error: unknown): string {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as { readonly code?: unknown };
    if (typeof code === 'string') return code;
    if (at instanceof AggregateError && at.errors.length > 0) return errorCode(at.errors[0]); // Node tried several addresses
  }
  return '';
}

/** What is wrong with a certificate, as in `the certificate …`, and what would help. */
export interface CertificateProblem {
  readonly problem: string;
  readonly next: string;
}

const TRUST = 'set ca_file (of a gateway: upstream_ca_file, of a database: sslrootcert) to the certificate of that authority';
const CLOCK = 'look at the clocks of both machines';
const UNKNOWN_ISSUER: CertificateProblem = { problem: 'is signed by an authority that is not trusted here', next: TRUST };
const OTHER_HOST: CertificateProblem = {
  problem: 'is for another host',
  next: 'use a name that is in the certificate, or issue one for this name',
};

/** Codes of failed verifications (OpenSSL X509_V_ERR_*, Node.js documentation "X509 certificate error codes"). */
const CERTIFICATE_PROBLEMS: Readonly<Record<string, CertificateProblem>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: {
    problem: 'is self-signed',
    next: 'set ca_file (of a gateway: upstream_ca_file, of a database: sslrootcert) to that certificate to trust it',
  },
  SELF_SIGNED_CERT_IN_CHAIN: { problem: 'comes with a self-signed authority that is not trusted here', next: TRUST },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_ISSUER,
  CERT_HAS_EXPIRED: { problem: 'has expired', next: `renew the certificate; if it is valid, ${CLOCK}` },
  CERT_NOT_YET_VALID: { problem: 'is not valid yet', next: CLOCK },
  CERT_REVOKED: { problem: 'is revoked', next: 'issue a new certificate' },
  CERT_SIGNATURE_FAILURE: { problem: 'has a wrong signature', next: 'issue a new certificate' },
  CERT_CHAIN_TOO_LONG: { problem: 'comes with too long a chain', next: 'serve the certificate with fewer authorities' },
  INVALID_CA: { problem: 'is signed by a certificate that may not sign others', next: 'issue one from an authority' },
  INVALID_PURPOSE: { problem: 'is not meant for servers', next: 'issue one with the extended key usage serverAuth' },
  HOSTNAME_MISMATCH: OTHER_HOST,
  ERR_TLS_CERT_ALTNAME_INVALID: OTHER_HOST,
};

/** What the code of a failed verification means; undefined for other codes. */
export function certificateProblem(code: string): CertificateProblem | undefined {
  return CERTIFICATE_PROBLEMS[code];
}

function isCertificateCode(code: string): boolean {
  return /^(CERT_|CRL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/.test(
    code,
  );
}
