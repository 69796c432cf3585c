import { readFile } from 'node:fs/promises';
import { type ConnectionOptions, getCACertificates } from 'node:tls';
import { errorText } from '#lib/errors.ts';
import type { ConnectionTarget } from './uri.ts';

/** What `pg` takes as `ssl`: off, or options for the TLS handshake. */
export type TlsSetting = false | ConnectionOptions;

/**
 * The ways to try, in order, for the target's `sslmode`, exactly as libpq defines them: disable = plain; allow = plain,
 * then TLS; prefer = TLS, then plain; require = TLS; verify-ca = TLS with the chain checked; verify-full = with the host
 * name checked as well. In the modes below verify-ca the chain is checked only when `sslrootcert` is given. Unix sockets
 * are never encrypted. Reads the certificate files; throws naming the file that cannot be read.
 */
export async function tlsSettings(target: ConnectionTarget): Promise<readonly TlsSetting[]> {
  if (target.host.startsWith('/')) return [false];
  const verifies = target.sslMode === 'verify-ca' || target.sslMode === 'verify-full';
  if (verifies && !target.sslRootCert) {
    throw new Error(`sslmode=${target.sslMode} needs sslrootcert: the file of the certificate authority, or sslrootcert=system`);
  }
  const options: ConnectionOptions = { rejectUnauthorized: target.sslRootCert !== undefined };
  if (target.sslRootCert === 'system') options.ca = getCACertificates('system');
  else if (target.sslRootCert) options.ca = await readPem('sslrootcert', target.sslRootCert);
  if (target.sslMode !== 'verify-full') options.checkServerIdentity = () => undefined;
  if (target.sslCert) options.cert = await readPem('sslcert', target.sslCert);
  if (target.sslKey) options.key = await readPem('sslkey', target.sslKey);
  if (target.sslPassword) options.passphrase = target.sslPassword;
  switch (target.sslMode) {
    case 'disable':
      return [false];
    case 'allow':
      return [false, options];
    case 'prefer':
      return [options, false];
    case 'require':
    case 'verify-ca':
    case 'verify-full':
      return [options];
  }
}

async function readPem(parameter: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`cannot read ${parameter}: ${errorText(error)}`, { cause: error });
  }
}
