import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgentSide } from '../../test/agent-side.ts';
import { startScriptedBroker } from '../../test/scripted-broker.ts';
import { readEndpoint } from './endpoint.ts';

const openssl = (...args: string[]) => promisify(execFile)('openssl', args);
let dir = '';
const file = (name: string) => join(dir, name);

/** A key and a certificate, signed by `ca` or by itself. */
async function certificate(name: string, host: string, { ca, from, to }: { ca?: string; from?: string; to?: string } = {}) {
  const subject = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    file(`${name}.key`),
    '-subj',
    `/CN=${name}`,
  ];
  const dates = from && to ? ['-not_before', from, '-not_after', to] : ['-days', '30'];
  if (!ca) {
    await openssl(
      'req',
      '-x509',
      ...subject,
      '-days',
      '30',
      '-out',
      file(`${name}.crt`),
      '-addext',
      `subjectAltName=DNS:${host}`,
    );
    return;
  }
  await openssl('req', ...subject, '-out', file(`${name}.csr`));
  await writeFile(file(`${name}.ext`), `subjectAltName=DNS:${host}\n`);
  if (from && to) {
    await writeFile(file('index.txt'), '');
    await writeFile(file('serial'), '1000\n');
    const config = `[ca]\ndefault_ca=d\n[d]\ndir=${dir}\ndatabase=${file('index.txt')}\nserial=${file('serial')}\nnew_certs_dir=${dir}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n`;
    await writeFile(file('ca.cnf'), config);
    const signer = ['-cert', file(`${ca}.crt`), '-keyfile', file(`${ca}.key`), '-extfile', file(`${name}.ext`)];
    await openssl(
      'ca',
      '-batch',
      '-config',
      file('ca.cnf'),
      '-startdate',
      from,
      '-enddate',
      to,
      ...signer,
      '-in',
      file(`${name}.csr`),
      '-out',
      file(`${name}.crt`),
    );
    return;
  }
  const signer = ['-CA', file(`${ca}.crt`), '-CAkey', file(`${ca}.key`), '-CAcreateserial', '-extfile', file(`${name}.ext`)];
  await openssl('x509', '-req', ...dates, ...signer, '-in', file(`${name}.csr`), '-out', file(`${name}.crt`));
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-tls-'));
  await certificate('self', 'localhost');
  await certificate('ca', 'ca.test');
  await certificate('good', 'localhost', { ca: 'ca' });
  await certificate('elsewhere', 'broker.example.com', { ca: 'ca' });
  await certificate('expired', 'localhost', { ca: 'ca', from: '20200101000000Z', to: '20200201000000Z' });
});
afterAll(() => rm(dir, { recursive: true }));

async function dial(name: string, caFile: string | undefined) {
  const tls = { key: await readFile(file(`${name}.key`)), cert: await readFile(file(`${name}.crt`)) };
  await using broker = await startScriptedBroker(tls);
  const options = { brokerUrl: broker.url, pak: 'key', pakFile: undefined, caFile: caFile && file(caFile) };
  const { ca } = await readEndpoint(options, {});
  await using agent = await startAgentSide(broker.url, ca);
  const session = agent.start('stream');
  return await Promise.race([session.ended, session.welcomed.then(() => 'welcomed' as const)]);
}

describe('a certificate', () => {
  it('is accepted when a trusted authority signed it', async () => {
    expect(await dial('good', 'ca.crt')).toBe('welcomed');
  });

  it('is accepted when it is the trusted one itself', async () => {
    expect(await dial('self', 'self.crt')).toBe('welcomed');
  });

  it.each([
    ['self', undefined, 'DEPTH_ZERO_SELF_SIGNED_CERT', /self-signed: set ca_file/],
    ['good', undefined, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', /authority this agent does not trust/],
    ['elsewhere', 'ca.crt', 'ERR_TLS_CERT_ALTNAME_INVALID', /another host .*broker\.example\.com/],
    ['expired', 'ca.crt', 'CERT_HAS_EXPIRED', /has expired/],
  ])('%s with trust in %s is refused with the reason %s', async (name, ca, reason, detail) => {
    expect(await dial(name, ca)).toMatchObject({ kind: 'untrusted', reason, detail: expect.stringMatching(detail) });
  });
});

describe('an endpoint', () => {
  const options = { brokerUrl: 'https://broker.example.com/base/', pak: 'inline', pakFile: undefined, caFile: undefined };

  it('trusts the system besides its own file', async () => {
    const { ca, url } = await readEndpoint({ ...options, caFile: file('ca.crt') }, {});
    expect(ca).toContain(await readFile(file('ca.crt'), 'utf8'));
    expect(ca?.length).toBeGreaterThanOrEqual(getCACertificates('default').length);
    expect(url.pathname).toBe('/base');
  });

  it('reads the key file at every connection', async () => {
    await writeFile(file('pak'), 'first\n');
    const read = async () => (await readEndpoint({ ...options, pakFile: file('pak') }, {})).pak;
    expect(await read()).toBe('first');
    await writeFile(file('pak'), 'second\n');
    expect(await read()).toBe('second');
  });

  it('says which file cannot be used', async () => {
    await expect(readEndpoint({ ...options, pakFile: '/nowhere/pak' }, {})).rejects.toThrow(/key file: .*\/nowhere\/pak/);
    await writeFile(file('not-pem'), 'hello');
    await expect(readEndpoint({ ...options, caFile: file('not-pem') }, {})).rejects.toThrow(/holds no certificate/);
  });

  it('goes through the proxy of the environment, but not to itself', async () => {
    const env = { HTTPS_PROXY: 'http://proxy.example.com:3128', NO_PROXY: 'internal.example.com' };
    expect((await readEndpoint(options, env)).proxy).toBe('http://proxy.example.com:3128');
    expect((await readEndpoint({ ...options, brokerUrl: 'https://internal.example.com' }, env)).proxy).toBeUndefined();
    expect((await readEndpoint({ ...options, brokerUrl: 'https://localhost:3000' }, env)).proxy).toBeUndefined();
  });
});
