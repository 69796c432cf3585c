import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server as TlsServer } from 'node:tls';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';

/** Where certificate and key are, PEM. */
export interface TlsFiles {
  /** Certificate with its chain. */
  readonly certFile: string;
  readonly keyFile: string;
  /** How often the files are looked at, milliseconds; 5,000 when absent. Works through renames, links and mounts. */
  readonly reloadMs?: number;
}

interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** How long a client may take to shake hands, milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** A TLS server that listens nowhere: feed it connections. Throws when the files do not make a usable pair. */
export async function openTls(files: TlsFiles): Promise<{ readonly server: TlsServer; readonly pair: Pair }> {
  const pair = await readPair(files);
  const server = createServer({
    ...pair,
    ALPNProtocols: ['h2', 'http/1.1'],
    minVersion: 'TLSv1.2',
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  });
  return { server, pair };
}

/**
 * Puts changed files into use for new connections; old ones live on. Files that do not make a pair leave the old pair in
 * place and are reported once. Returns when `signal` aborts.
 */
export async function watchTls(
  server: TlsServer,
  current: Pair,
  files: TlsFiles,
  deps: { readonly clock: Clock; readonly log: Logger },
  signal: AbortSignal,
): Promise<void> {
  let used = current;
  let refused = '';
  while (!signal.aborted) {
    await deps.clock.sleep(files.reloadMs ?? 5000, signal).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const found = await readPair(files);
      refused = '';
      if (found.cert === used.cert && found.key === used.key) continue;
      server.setSecureContext({ ...found, minVersion: 'TLSv1.2' });
      used = found;
      deps.log.info({ certFile: files.certFile, validTo: new X509Certificate(found.cert).validTo }, 'certificate reloaded');
    } catch (error) {
      const reason = errorText(error);
      if (reason !== refused)
        deps.log.error({ certFile: files.certFile, error: reason }, 'new certificate not usable, keeping the old one');
      refused = reason;
    }
  }
}

async function readPair({ certFile, keyFile }: TlsFiles): Promise<Pair> {
  const [cert, key] = await Promise.all([readText(certFile), readText(keyFile)]);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(cert);
  } catch (error) {
    throw new Error(`${certFile} has no certificate in PEM: ${errorText(error)}`, { cause: error });
  }
  try {
    if (certificate.checkPrivateKey(createPrivateKey(key))) return { cert, key };
  } catch (error) {
    throw new Error(`${keyFile} has no usable private key in PEM: ${errorText(error)}`, { cause: error });
  }
  throw new Error(`the key in ${keyFile} does not belong to the certificate in ${certFile}`);
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`${path} cannot be read: ${errorText(error)}`, { cause: error });
  }
}
