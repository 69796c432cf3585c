import { readFile } from 'node:fs/promises';
import { getCACertificates } from 'node:tls';
import { BrokkrError, errorText } from './errors.ts';

/**
 * The certificates to trust, in PEM: those of `caFile`, Mozilla's list, those of NODE_EXTRA_CA_CERTS and the machine's own store.
 * Rejects with `invalid_request` naming a file that cannot be used.
 */
export async function trustedAuthorities(caFile: string | undefined): Promise<readonly string[]> {
  const own = caFile === undefined ? [] : [await readAuthorities(caFile)];
  return [...new Set([...own, ...getCACertificates('default'), ...getCACertificates('system')])];
}

/** The certificates of a file, in PEM. Rejects with `invalid_request` naming a file that cannot be used. */
export async function readAuthorities(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new BrokkrError('invalid_request', `cannot read the ca file: ${errorText(error)}`, { cause: error });
  });
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new BrokkrError('invalid_request', `${path} holds no certificate in PEM form`);
}
