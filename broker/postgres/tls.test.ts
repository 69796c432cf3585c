import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../hack/kube/ports.ts';
import { makeCertificate } from '../../test/certificates.ts';
import { type OwnPostgres, openTestDatabase, startOwnPostgres } from '../../test/postgres.ts';
import { serverAccount } from './account.ts';

const dir = mkdtempSync(join(tmpdir(), 'brokkr-tls-'));
let port: number;
let encrypted: OwnPostgres;
let plain: OwnPostgres;
let plainPort: number;

beforeAll(async () => {
  const account = await serverAccount();
  chmodSync(dir, 0o755);
  await makeCertificate(dir, 'ca', 'ca.test');
  await makeCertificate(dir, 'other-ca', 'other-ca.test');
  await makeCertificate(dir, 'server', 'localhost', { ca: 'ca' });
  await makeCertificate(dir, 'with_certificate', 'client.test', { ca: 'ca' }); // the name is the user's
  for (const name of ['server', 'with_certificate']) chmodSync(join(dir, `${name}.key`), 0o600);
  if (account) for (const file of ['server.key', 'server.crt', 'ca.crt']) chownSync(join(dir, file), account.uid, account.gid);
  writeFileSync(
    join(dir, 'tls_hba.conf'),
    [
      'local all all trust',
      'hostssl all with_certificate all cert',
      'hostnossl all only_tls all reject',
      'hostssl all only_plain all reject',
      'host all with_password all scram-sha-256',
      'host all all all trust',
    ].join('\n'),
  );
  [port, plainPort] = [await freePort(), await freePort()];
  const common = { listen_addresses: '127.0.0.1', hba_file: join(dir, 'tls_hba.conf') };
  const tls = {
    ssl: 'on',
    ssl_cert_file: join(dir, 'server.crt'),
    ssl_key_file: join(dir, 'server.key'),
    ssl_ca_file: join(dir, 'ca.crt'),
  };
  encrypted = await startOwnPostgres({ ...common, ...tls, port: String(port) });
  writeFileSync(join(dir, 'plain_hba.conf'), 'local all all trust\nhost all all all trust\n');
  plain = await startOwnPostgres({ ...common, hba_file: join(dir, 'plain_hba.conf'), port: String(plainPort) });
  await using db = await openTestDatabase(encrypted.url);
  for (const role of ['only_tls', 'only_plain', 'with_certificate', 'with_password'])
    await db.query(`create role ${role} superuser login password 'p@ss/wörd'`);
});
afterAll(async () => {
  await encrypted?.[Symbol.asyncDispose]();
  await plain?.[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true });
});

const file = (name: string) => encodeURIComponent(join(dir, name));

/** Connects and tells whether the connection is encrypted, or why there is none. */
async function attempt(
  parameters: string,
  {
    user = 'brokkr',
    host = 'localhost',
    at = port,
    environment = {},
  }: { user?: string; host?: string; at?: number; environment?: Record<string, string> } = {},
): Promise<string> {
  try {
    await using db = await openTestDatabase(
      `postgresql://${user}@${host}:${at}/brokkr?${parameters}`,
      { connectTimeoutMs: 0 },
      { environment },
    );
    const [row] = await db.query<{ ssl: boolean }>('select ssl from pg_stat_ssl where pid = pg_backend_pid()');
    await db.transaction((tx) => tx.query('select 1'));
    return row?.ssl ? 'tls' : 'plain';
  } catch (error) {
    return String((error as { details?: { reason?: unknown } }).details?.reason ?? error);
  }
}

describe('sslmode against a server with a private authority', () => {
  it.each([
    ['sslmode=disable', 'plain'],
    ['sslmode=allow', 'plain'],
    ['sslmode=prefer', 'tls'],
    ['', 'tls'],
    ['sslmode=require', 'tls'],
    [`sslmode=require&sslrootcert=${file('ca.crt')}`, 'tls'],
    [`sslmode=require&sslrootcert=${file('other-ca.crt')}`, 'certificate'],
    [`sslmode=verify-ca&sslrootcert=${file('ca.crt')}`, 'tls'],
    [`sslmode=verify-ca&sslrootcert=${file('other-ca.crt')}`, 'certificate'],
    [`sslmode=verify-full&sslrootcert=${file('ca.crt')}`, 'tls'],
    [`sslmode=verify-full&sslrootcert=${file('other-ca.crt')}`, 'certificate'],
    ['sslrootcert=system', 'certificate'],
    [`sslmode=verify-full&sslnegotiation=direct&sslrootcert=${file('ca.crt')}`, 'tls'],
  ])('%s gives %s', async (parameters, expected) => {
    expect(await attempt(parameters)).toBe(expected);
  });

  // N-077
  it('has for every mode, host, authority and client certificate the end that libpq gives it', async () => {
    const ends: Record<string, string> = {};
    const expected: Record<string, string> = {};
    for (const mode of ['disable', 'require', 'verify-ca', 'verify-full'])
      for (const host of ['localhost', '127.0.0.1'])
        for (const authority of ['ca.crt', 'other-ca.crt'])
          for (const certificate of ['', `&sslcert=${file('with_certificate.crt')}&sslkey=${file('with_certificate.key')}`]) {
            const cell = `${mode} ${host} ${authority} ${certificate === '' ? 'without' : 'with'} certificate`;
            const parameters = `sslmode=${mode}&sslrootcert=${file(authority)}${certificate}`;
            ends[cell] = await attempt(parameters, { host, user: 'with_certificate' });
            const isRefused = authority === 'other-ca.crt' || (mode === 'verify-full' && host === '127.0.0.1');
            const encrypted = certificate === '' ? 'authentication' : 'tls';
            expected[cell] = mode === 'disable' ? 'plain' : isRefused ? 'certificate' : encrypted;
          }
    expect(Object.keys(ends)).toHaveLength(32);
    expect(ends).toEqual(expected);
  });

  it('checks the host name under verify-full only', async () => {
    expect(await attempt(`sslmode=verify-ca&sslrootcert=${file('ca.crt')}`, { host: '127.0.0.1' })).toBe('tls');
    expect(await attempt(`sslmode=verify-full&sslrootcert=${file('ca.crt')}`, { host: '127.0.0.1' })).toBe('certificate');
    const wrong = openTestDatabase(
      `postgresql://brokkr@127.0.0.1:${port}/brokkr?sslmode=verify-full&sslrootcert=${file('ca.crt')}`,
    );
    await expect(wrong).rejects.toThrow(new RegExp(`127.0.0.1:${port} is not accepted under sslmode=verify-full .*altnames`));
  });

  it('falls back as allow and prefer do', async () => {
    expect(await attempt('sslmode=allow', { user: 'only_tls' })).toBe('tls');
    expect(await attempt('sslmode=disable', { user: 'only_tls' })).toBe('authentication');
    expect(await attempt('sslmode=prefer', { user: 'only_plain' })).toBe('plain');
    expect(await attempt('sslmode=require', { user: 'only_plain' })).toBe('authentication');
  });

  it('shows a client certificate', async () => {
    const certificate = `sslcert=${file('with_certificate.crt')}&sslkey=${file('with_certificate.key')}`;
    expect(await attempt(`sslmode=verify-full&sslrootcert=${file('ca.crt')}&${certificate}`, { user: 'with_certificate' })).toBe(
      'tls',
    );
    expect(await attempt('sslmode=require', { user: 'with_certificate' })).toBe('authentication');
  });

  it('sends a percent-encoded password, and tells a wrong one', async () => {
    expect(await attempt('sslmode=require', { user: `with_password:${encodeURIComponent('p@ss/wörd')}` })).toBe('tls');
    expect(await attempt('sslmode=require', { user: 'with_password:wrong' })).toBe('authentication');
    expect(await attempt('sslmode=require', { user: 'with_password' })).toBe('authentication');
  });

  it('takes sslmode from the environment given', async () => {
    expect(await attempt('', { environment: { PGSSLMODE: 'disable' } })).toBe('plain');
    expect(await attempt('', { environment: { PGSSLMODE: 'verify-full', PGSSLROOTCERT: join(dir, 'ca.crt') } })).toBe('tls');
  });

  it('wants an authority for the verifying modes, and names a file it cannot read', async () => {
    expect(await attempt('sslmode=verify-full')).toMatch(/verify-full needs sslrootcert/);
    expect(await attempt('sslmode=verify-ca')).toMatch(/verify-ca needs sslrootcert/);
    expect(await attempt(`sslmode=verify-ca&sslrootcert=${file('absent')}`)).toMatch(/cannot read sslrootcert.*absent/);
  });

  it('ignores sslmode on a Unix socket', async () => {
    await using db = await openTestDatabase(`${encrypted.url}&sslmode=verify-full`);
    expect(await db.query('select 1 as one')).toEqual([{ one: 1 }]);
  });
});

describe('sslmode against a server without TLS', () => {
  it.each([
    ['sslmode=disable', 'plain'],
    ['sslmode=allow', 'plain'],
    ['sslmode=prefer', 'plain'],
    ['sslmode=require', 'tls'],
    [`sslmode=verify-full&sslrootcert=${file('ca.crt')}`, 'tls'],
  ])('%s gives %s', async (parameters, expected) => {
    expect(await attempt(parameters, { at: plainPort })).toBe(expected); // here `tls` is the reason of the failure
  });
});
