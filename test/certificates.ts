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

/** Makes `name.key` and `name.crt` for a host name or address in `dir`, signed by the certificate `ca` of that folder, or by itself. */
export async function makeCertificate(
  dir: string,
  name: string,
  host: string,
  { ca, valid }: CertificateOptions = {},
): Promise<void> {
  const file = (ending: string) => join(dir, ending);
  const alternative = `subjectAltName=${isIP(host) === 0 ? 'DNS' : 'IP'}:${host}`;
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', file(`${name}.key`)];
  const subject = [...key, '-subj', `/CN=${name}`];
  if (ca === undefined) {
    await openssl('req', '-x509', ...subject, '-days', '30', '-out', file(`${name}.crt`), '-addext', alternative);
    return;
  }
  await openssl('req', ...subject, '-out', file(`${name}.csr`));
  await writeFile(file(`${name}.ext`), `${alternative}\n`);
  const files = ['-in', file(`${name}.csr`), '-out', file(`${name}.crt`), '-extfile', file(`${name}.ext`)];
  if (valid === undefined) {
    await openssl(
      'x509',
      '-req',
      '-days',
      '30',
      '-CA',
      file(`${ca}.crt`),
      '-CAkey',
      file(`${ca}.key`),
      '-CAcreateserial',
      ...files,
    );
    return;
  }
  // only this command takes dates
  await writeFile(file('index.txt'), '');
  await writeFile(file('serial'), '1000\n');
  const places = [`dir=${dir}`, `database=${file('index.txt')}`, `serial=${file('serial')}`, `new_certs_dir=${dir}`];
  const config = ['[ca]', 'default_ca=d', '[d]', ...places, 'default_md=sha256', 'policy=p', '[p]', 'commonName=supplied', ''];
  await writeFile(file('ca.cnf'), config.join('\n'));
  const signer = ['-cert', file(`${ca}.crt`), '-keyfile', file(`${ca}.key`), '-startdate', valid[0], '-enddate', valid[1]];
  await openssl('ca', '-batch', '-config', file('ca.cnf'), ...signer, ...files);
}
