import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { createSecureContext, createServer, type SecureContext, type Server as TlsServer } from 'node:tls';
import type { Clock } from './clock.ts';
import { errorText } from './errors.ts';
import type { Logger } from './log.ts';
import { reload } from './reload.ts';

/** Where certificate and key are, PEM. */
export interface TlsFiles {
  /** Certificate with its chain. */
  readonly certFile: string;
  readonly keyFile: string;
  /** How often the files are looked at, milliseconds; see `reload`. */
  readonly reloadMs?: number;
}

/** A TLS server that listens nowhere: feed it connections. */
export interface TlsTermination {
  readonly server: TlsServer;
  /** The certificate that a client is shown which asks for this name, or for none. */
  certificateFor(serverName: string | false | null | undefined): X509Certificate;
  /** Those in use, in the order given. */
  certificates(): readonly { readonly certFile: string; readonly leaf: X509Certificate }[];
  /**
   * Puts changed files into use for new connections; old ones live on. Files that do not make a pair leave the old pair in
   * place and are reported once. Returns when `signal` aborts.
   */
  watch(signal: AbortSignal): Promise<void>;
}

/** A pair of files in use. */
interface Loaded {
  readonly files: TlsFiles;
  readonly cert: string;
  readonly key: string;
  readonly leaf: X509Certificate;
  readonly context: SecureContext;
}

/** How long a client may take to shake hands, milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * Loads the certificates. A client is shown the first one that has the name it asks for (SNI, RFC 6066, 3), otherwise the first
 * of all. Throws when files do not make a usable pair; one that is out of date is used and warned of.
 */
export async function openTls(
  certificates: readonly TlsFiles[],
  deps: { readonly clock: Clock; readonly log: Logger },
): Promise<TlsTermination> {
  const loaded = await Promise.all(certificates.map((files) => load(files)));
  for (const each of loaded) warnOfDates(each, deps);
  const find = (serverName: string) => loaded.find(({ leaf }) => hasName(leaf, serverName));
  const first = () => {
    if (!loaded[0]) throw new Error('tls needs a certificate');
    return loaded[0];
  };
  const server = createServer({
    cert: first().cert,
    key: first().key,
    SNICallback: (serverName, done) => done(null, find(serverName)?.context),
    ALPNProtocols: ['h2', 'http/1.1'],
    minVersion: 'TLSv1.2',
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  });
  return {
    server,
    certificateFor: (serverName) => ((serverName && find(serverName)) || first()).leaf,
    certificates: () => loaded.map(({ files, leaf }) => ({ certFile: files.certFile, leaf })),
    async watch(signal) {
      const replace = (index: number, found: Loaded) => {
        loaded[index] = found;
        if (index === 0) server.setSecureContext({ cert: found.cert, key: found.key, minVersion: 'TLSv1.2' });
        deps.log.info({ certFile: found.files.certFile, validTo: found.leaf.validTo }, 'certificate reloaded');
        warnOfDates(found, deps);
      };
      const watching = loaded.map((used, index) => {
        const { certFile, reloadMs } = used.files;
        return reload(
          {
            used,
            read: () => load(used.files),
            isSame: (found, before) => found.cert === before.cert && found.key === before.key,
            changed: (found) => replace(index, found),
            refused: (error) => deps.log.error({ certFile, error }, 'new certificate not usable, keeping the old one'),
            everyMs: reloadMs,
          },
          deps.clock,
          signal,
        );
      });
      await Promise.all(watching);
    },
  };
}

/** Whether a certificate is for this host; some clients send addresses as names. */
export function hasName(leaf: X509Certificate, host: string): boolean {
  return (isIP(host) ? leaf.checkIP(host) : leaf.checkHost(host)) !== undefined;
}

/** What is wrong with the dates of a certificate, undefined when it is valid now. */
export function dateProblem(leaf: X509Certificate, nowMs: number): string | undefined {
  if (leaf.validToDate.getTime() < nowMs) return `the certificate has expired, on ${leaf.validTo}`;
  if (leaf.validFromDate.getTime() > nowMs) return `the certificate is not valid before ${leaf.validFrom}`;
  return undefined;
}

function warnOfDates({ leaf, files }: Loaded, { clock, log }: { readonly clock: Clock; readonly log: Logger }): void {
  const problem = dateProblem(leaf, clock.now());
  if (problem) log.warn({ certFile: files.certFile, error: problem }, 'clients will refuse this certificate');
}

async function load(files: TlsFiles): Promise<Loaded> {
  const { certFile, keyFile } = files;
  const [cert, key] = await Promise.all([readText(certFile), readText(keyFile)]);
  const leaf = readCertificate(certFile, cert);
  let fits: boolean;
  try {
    fits = leaf.checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw new Error(`${keyFile} has no usable private key in PEM: ${errorText(error)}`, { cause: error });
  }
  if (!fits) throw new Error(`the key in ${keyFile} does not belong to the certificate in ${certFile}`);
  return { files, cert, key, leaf, context: createSecureContext({ cert, key, minVersion: 'TLSv1.2' }) };
}

function readCertificate(certFile: string, cert: string): X509Certificate {
  try {
    return new X509Certificate(cert);
  } catch (error) {
    throw new Error(`${certFile} has no certificate in PEM: ${errorText(error)}`, { cause: error });
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`${path} cannot be read: ${errorText(error)}`, { cause: error });
  }
}
