import { once } from 'node:events';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Authority, createAuthority, type Wanted } from '../test/certificate-authority.ts';
import { say, startGateway, startHttp2Upstream, type TestUpstream } from '../test/gateway-rig.ts';
import { temporaryDirectory } from '../test/processes.ts';

const HOSTS = ['127.0.0.1', 'one.test'];
const CERTIFICATES: Readonly<Record<string, Wanted>> = {
  good: { hosts: HOSTS },
  expired: { hosts: HOSTS, fromDays: -3, toDays: -1 },
  early: { hosts: HOSTS, fromDays: 1, toDays: 3 },
  misnamed: { hosts: ['two.test'] },
};
let authority: Authority;
let stranger: Authority;
let home: string;
const directory = (name: string) => join(home, name);

beforeAll(async () => {
  home = await temporaryDirectory();
  [authority, stranger] = await Promise.all([createAuthority('own authority'), createAuthority('other authority')]);
  await Promise.all(Object.entries(CERTIFICATES).map(([name, wanted]) => authority.issue(directory(name), wanted)));
});

/** Asks for https://NAME/ on a port, over TLS and with the authority given. */
async function ask(port: number, { name = 'one.test', ca = authority.certFile } = {}): Promise<string> {
  const { text } = await say('curl', [
    '-sS',
    '--cacert',
    ca,
    '--connect-to',
    `${name}:443:127.0.0.1:${port}`,
    `https://${name}/`,
  ]);
  return text;
}

const serve = () =>
  startHttp2Upstream((stream) => {
    stream.respond();
    stream.end('hello');
  });

// N-106, N-107, N-140
describe('a handshake that fails', () => {
  it.each([
    ['the wrong authority', 'good', { ca: 'stranger' }, /unable to get local issuer|self.signed/, 'does not trust the authority'],
    ['an expired certificate', 'expired', {}, /has expired/, 'the certificate has expired, on '],
    ['a certificate of tomorrow', 'early', {}, /not yet valid/, 'the certificate is not valid before '],
  ])('is explained at both ends: %s', async (_, certificate, { ca }: { ca?: string }, client, server) => {
    await using upstream = await serve();
    const gateway = await startGateway([directory(certificate)], [upstream.url]);
    expect(await ask(gateway.port, ca === undefined ? {} : { ca: stranger.certFile })).toMatch(client);
    const line = await gateway.line(({ msg }) => msg === 'tls handshake failed');
    expect(line).toMatchObject({ client: '127.0.0.1', server_name: 'one.test', error: expect.stringContaining(server) });
    const warnings = gateway.log.filter(({ msg }) => msg === 'clients will refuse this certificate');
    expect(warnings).toHaveLength(certificate === 'good' ? 0 : 1);
  });

  it('is explained at both ends: the wrong name', async () => {
    await using upstream = await serve();
    const gateway = await startGateway([directory('good')], [upstream.url]);
    expect(await ask(gateway.port, { name: 'three.test' })).toMatch(/no alternative certificate subject name matches/);
    const line = await gateway.line(({ msg }) => msg === 'a client asks for a name that no certificate has');
    expect(line.server_name).toBe('three.test');
    const strict = [
      '-servername',
      'three.test',
      '-verify_hostname',
      'three.test',
      '-verify_return_error',
      '-CAfile',
      authority.certFile,
    ];
    const openssl = await say('openssl', ['s_client', '-connect', `127.0.0.1:${gateway.port}`, ...strict]);
    expect(openssl.text).toMatch(/hostname mismatch/i);
    const refused = await gateway.line(({ msg }) => msg === 'tls handshake failed');
    expect(refused.error).toBe('the client asked for three.test, the certificate is for IP Address:127.0.0.1, DNS:one.test');
  });

  it('is explained at both ends: plain HTTP on the TLS port', async () => {
    await using upstream = await serve();
    const gateway = await startGateway([directory('good')], [upstream.url]);
    expect((await say('curl', ['-sS', `http://127.0.0.1:${gateway.port}/`])).text).toBe('this port speaks TLS, use https://\n');
    await gateway.line(({ msg }) => msg === 'a client speaks plain http on a tls port');
  });
});

/** A server that speaks both versions of HTTP over TLS. */
async function startTlsUpstream(certificate: string): Promise<TestUpstream> {
  const [cert, key] = await Promise.all(['tls.crt', 'tls.key'].map((file) => readFile(join(directory(certificate), file))));
  const server = createSecureServer({ cert, key, allowHTTP1: true }, (_, response) => response.end('secret'));
  server.on('sessionError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
}

// N-103
describe.each(['http2', 'http1'])('a gateway that encrypts to its upstream again (%s)', (protocol) => {
  const start = (url: string, ca: string | undefined) =>
    startGateway([directory('good')], [url], {
      BROKKR__GATEWAY__UPSTREAM_PROTOCOL: protocol,
      ...(ca !== undefined && { BROKKR__GATEWAY__UPSTREAM_CA_FILE: ca }),
    });

  it('trusts the authority it was given, and that one only', async () => {
    await using upstream = await startTlsUpstream('good');
    const gateway = await start(upstream.url, authority.certFile);
    expect(await ask(gateway.port)).toBe('secret');
    await gateway.stop();
  });

  it.each([
    ['another authority', 'good', 'stranger', /authority that is not trusted here .* \(certificate\): set ca_file/],
    ['the authorities of the system', 'good', undefined, /authority that is not trusted here .* \(certificate\): set ca_file/],
    ['an expired certificate', 'expired', 'own', /the certificate has expired .* \(certificate\): renew/],
    ['a certificate of tomorrow', 'early', 'own', /the certificate is not valid yet .* \(certificate\): look at the clocks/],
    ['a certificate for another host', 'misnamed', 'own', /the certificate is for another host .* \(certificate\): use a name/],
  ])('sends nothing and says why: %s', async (_, certificate, trusted, reason) => {
    await using upstream = await startTlsUpstream(certificate);
    const ca = trusted === 'own' ? authority.certFile : trusted && stranger.certFile;
    const gateway = await start(upstream.url, ca);
    expect(await ask(gateway.port)).toContain('no upstream can be reached');
    const line = await gateway.line(({ msg }) => msg === 'upstream is not healthy');
    expect(line.error).toMatch(reason);
    await gateway.stop();
  });

  // N-104
  it('takes other authorities into use without a restart', async () => {
    await using upstream = await startTlsUpstream('good');
    const caFile = join(await temporaryDirectory(), 'ca.crt');
    await copyFile(stranger.certFile, caFile);
    const gateway = await start(upstream.url, caFile);
    expect(await ask(gateway.port)).toContain('no upstream can be reached');
    await writeFile(caFile, 'nothing of the kind');
    await gateway.line(({ msg }) => msg === 'new authorities not usable, keeping the old ones');
    await copyFile(authority.certFile, caFile);
    await gateway.line(({ msg }) => msg === 'upstream is healthy again');
    expect(await ask(gateway.port)).toBe('secret');
    await gateway.stop();
  });

  it('says that an upstream speaks no TLS, or nothing else', async () => {
    await using plain = await serve();
    await using secure = await startTlsUpstream('good');
    const wrong = [plain.url.replace('http:', 'https:'), secure.url.replace('https:', 'http:')];
    const gateway = await startGateway([directory('good')], wrong, { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: protocol });
    const said = async (url: string | undefined) => {
      const line = await gateway.line(
        ({ msg, endpoint }) => msg === 'upstream is not healthy' && `${url}`.endsWith(`//${endpoint}`),
      );
      return line.error;
    };
    expect(await said(wrong[0])).toMatch(/\(tls\): compare http with https/);
    const silence = protocol === 'http2' ? /without a word of http\/2 \(protocol\)/ : /socket hang up \(reset\)/;
    expect(await said(wrong[1])).toMatch(silence);
    await gateway.stop();
  });
});
