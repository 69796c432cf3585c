import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

const openssl = (...args: string[]) => promisify(execFile)('openssl', args);

/** Who signs a certificate, and when it is valid (`YYYYMMDDhhmmssZ`; 30 days from now unless given). */
export interface CertificateOptions {
  readonly ca?: string;
  readonly valid?: readonly [from: string, to: string];
}

/**
 * Makes `name.key` and `name.crt` for host names and addresses in `dir`, signed by the certificate `ca` of that folder, or by itself. Serial
 * numbers are random.
 */
export async function makeCertificate(
  dir: string,
  name: string,
  hosts: string | readonly string[],
  { ca, valid }: CertificateOptions = {},
): Promise<void> {
  const file = (ending: string) => join(dir, ending);
  const alternatives = [hosts].flat().map((host) => `${isIP(host) === 0 ? 'DNS' : 'IP'}:${host}`);
  const alternative = `subjectAltName=${alternatives.join(',')}`;
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', file(`${name}.key`)];
  const subject = [...key, '-subj', `/CN=${name}`];
  if (ca === undefined) {
    await openssl('req', '-x509', ...subject, '-days', '30', '-out', file(`${name}.crt`), '-addext', alternative);
    return;
  }
  await openssl('req', ...subject, '-out', file(`${name}.csr`));
  await Promise.all([
    writeFile(file(`${name}.ext`), `${alternative}\nbasicConstraints=critical,CA:FALSE\n`),
    writeFile(file(`${name}.index`), ''), // what this authority has signed: nothing, each time
    writeFile(file(`${name}.cnf`), CONFIGURATION.replaceAll('DIR', dir).replaceAll('INDEX', file(`${name}.index`))),
  ]);
  const period = valid === undefined ? ['-days', '30'] : ['-startdate', valid[0], '-enddate', valid[1]];
  const signer = ['-config', file(`${name}.cnf`), '-cert', file(`${ca}.crt`), '-keyfile', file(`${ca}.key`), ...period];
  const files = ['-in', file(`${name}.csr`), '-out', file(`${name}.crt`), '-extfile', file(`${name}.ext`)];
  await openssl('ca', '-batch', '-notext', ...signer, ...files);
}

/** Of `openssl ca`, the only command that takes dates. */
const CONFIGURATION = `[ca]
default_ca = own
[own]
new_certs_dir = DIR
database = INDEX
default_md = sha256
policy = any
rand_serial = yes
[any]
commonName = supplied
`;
