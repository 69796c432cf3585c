import { execFile } from 'node:child_process';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { temporaryDirectory } from './processes.ts';

const openssl = (...args: string[]) => promisify(execFile)('openssl', args);
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
const DAY_MS = 86_400_000;

/** A certificate as the test wants it. */
export interface Wanted {
  /** `DNS:…` and `IP:…`. */
  readonly hosts: readonly string[];
  /** Days from today; valid from yesterday to the day after tomorrow when absent. */
  readonly fromDays?: number;
  readonly toDays?: number;
}

/** A certificate authority of a test's own. */
export interface Authority {
  /** Its certificate, PEM. */
  readonly certFile: string;
  /** Writes `tls.crt` and `tls.key` into the directory, the way a changed Secret appears: whole files, one after the other. */
  issue(directory: string, wanted: Wanted): Promise<void>;
}

/** Makes an authority whose files go away at the end of the test file. */
export async function createAuthority(name: string): Promise<Authority> {
  const home = await temporaryDirectory();
  const file = (base: string) => join(home, base);
  const certFile = file('ca.crt');
  await openssl('req', '-x509', ...KEY, '-days', '3', '-subj', `/CN=${name}`, '-keyout', file('ca.key'), '-out', certFile);
  return {
    certFile,
    async issue(directory, { hosts, fromDays = -1, toDays = 2 }) {
      await mkdir(directory, { recursive: true });
      const own = (base: string) => join(directory, base);
      const lines = ['[ca]', 'default_ca = own', '[own]', `new_certs_dir = ${directory}`, `database = ${own('index')}`];
      lines.push('default_md = sha256', 'policy = any', 'rand_serial = yes', '[any]', 'commonName = supplied');
      const extensions = [`subjectAltName=${hosts.join(',')}`, 'basicConstraints=critical,CA:FALSE'];
      await Promise.all([
        writeFile(own('ca.cnf'), `${lines.join('\n')}\n`),
        writeFile(own('ext'), `${extensions.join('\n')}\n`),
        writeFile(own('index'), ''),
      ]);
      await openssl('req', '-new', ...KEY, '-subj', `/CN=${name} server`, '-keyout', own('new.key'), '-out', own('tls.csr'));
      await openssl(
        ...['ca', '-batch', '-notext', '-config', own('ca.cnf'), '-cert', certFile, '-keyfile', file('ca.key')],
        ...[
          '-startdate',
          at(fromDays),
          '-enddate',
          at(toDays),
          '-extfile',
          own('ext'),
          '-in',
          own('tls.csr'),
          '-out',
          own('new.crt'),
        ],
      );
      await rename(own('new.key'), join(directory, 'tls.key'));
      await rename(own('new.crt'), join(directory, 'tls.crt'));
    },
  };
}

/** As openssl wants times: YYYYMMDDHHMMSSZ. */
function at(days: number): string {
  return `${new Date(Date.now() + days * DAY_MS).toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)}Z`;
}
