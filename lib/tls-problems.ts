import type { X509Certificate } from 'node:crypto';
import { errorText } from './errors.ts';
import { dateProblem, hasName } from './tls.ts';

/** What a client was shown when it broke off. */
export interface Shown {
  readonly certificate: X509Certificate;
  /** The name it asked for, if it named one. */
  readonly serverName: string | undefined;
  readonly nowMs: number;
}

/** Alerts by which clients refuse a certificate (RFC 8446, 6.2), as OpenSSL spells them in its error codes. */
const REFUSALS = ['BAD_CERTIFICATE', 'CERTIFICATE_EXPIRED', 'CERTIFICATE_UNKNOWN', 'UNKNOWN_CA', 'UNSUPPORTED_CERTIFICATE'];

/** Why handshakes fail, for counting. */
export const HANDSHAKE_FAILURES = ['certificate', 'left', 'version', 'timeout', 'plain', 'other'] as const;

/** certificate: the client refused ours; left: it closed; version: too old; timeout: too slow; plain: it speaks no TLS. */
export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number];

/** The class of a failed handshake. */
export function handshakeFailure({ code = '' }: NodeJS.ErrnoException): HandshakeFailure {
  if (REFUSALS.some((alert) => code.endsWith(`ALERT_${alert}`))) return 'certificate';
  return BY_CODE[code] ?? 'other';
}

const BY_CODE: Readonly<Record<string, HandshakeFailure>> = {
  ECONNRESET: 'left',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'version',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'timeout',
};

/** Why a handshake failed, for the side that serves: the alert tells little, so the certificate is looked at once more. */
export function handshakeProblem(error: NodeJS.ErrnoException, { certificate, serverName, nowMs }: Shown): string {
  const code = error.code ?? '';
  if (REFUSALS.some((alert) => code.endsWith(`ALERT_${alert}`))) {
    const dates = dateProblem(certificate, nowMs);
    if (dates) return `the client refused the certificate: ${dates}`;
    if (code.endsWith('UNKNOWN_CA')) return 'the client does not trust the authority that signed the certificate';
    const other = serverName !== undefined && !hasName(certificate, serverName);
    if (other) return `the client asked for ${serverName}, the certificate is for ${certificate.subjectAltName ?? 'no host'}`;
    return `the client refused the certificate: ${code}`;
  }
  if (code === 'ECONNRESET') return 'the client left during the handshake';
  if (code === 'ERR_SSL_UNSUPPORTED_PROTOCOL') return 'the client speaks no version of TLS from 1.2 on';
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'the client did not finish the handshake in time';
  return errorText(error);
}
