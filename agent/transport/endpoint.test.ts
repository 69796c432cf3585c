import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgentSide } from '../../test/agent-side.ts';
import { makeCertificate } from '../../test/certificates.ts';
import { startScriptedBroker } from '../../test/scripted-broker.ts';
import { readEndpoint } from './endpoint.ts';

let dir = '';
const file = (name: string) => join(dir, name);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-tls-'));
  await makeCertificate(dir, 'self', 'localhost');
  await makeCertificate(dir, 'ca', 'ca.test');
  await makeCertificate(dir, 'good', 'localhost', { ca: 'ca' });
  await makeCertificate(dir, 'elsewhere', 'broker.example.com', { ca: 'ca' });
  await makeCertificate(dir, 'expired', 'localhost', { ca: 'ca', valid: ['20200101000000Z', '20200201000000Z'] });
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
    ['good', undefined, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', /authority that is not trusted here: set ca_file/],
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
