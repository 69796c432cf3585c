import { describe, expect, it } from 'vitest';
import { endpointText, parseConnectionUri } from './uri.ts';

const parse = (uri: string, environment: Record<string, string> = {}) => parseConnectionUri(uri, environment);

describe('connection URI', () => {
  it.each([
    [
      'postgresql://brokkr@db.example:6432/fleet',
      { host: 'db.example', port: 6432, user: 'brokkr', database: 'fleet', password: undefined },
    ],
    ['postgres://brokkr:secret@db/fleet', { host: 'db', port: 5432, password: 'secret' }],
    ['postgresql://us%40er:p%3Aa%2Fs%25s%3F%23@db/my%20db', { user: 'us@er', password: 'p:a/s%s?#', database: 'my db' }],
    ['postgresql://u:a+b@db/x', { password: 'a+b' }],
    ['postgresql://u:p:q@db/x', { user: 'u', password: 'p:q' }],
    ['postgresql://u@[2001:db8::1]:5433/x', { host: '2001:db8::1', port: 5433 }],
    ['postgresql://u@[::1]/x', { host: '::1', port: 5432 }],
    ['postgresql://u@%2Frun%2Fpostgresql/x', { host: '/run/postgresql' }],
    ['postgresql:///x?host=/run/postgresql&user=u', { host: '/run/postgresql', user: 'u', database: 'x' }],
    ['postgresql://u@:6000/x?host=%2Ftmp%2Fa%20b', { host: '/tmp/a b', port: 6000 }],
    ['postgresql://u@db', { user: 'u', database: 'u' }],
    ['postgresql://u@db/x?sslmode=verify-ca&sslrootcert=%2Fca.pem', { sslMode: 'verify-ca', sslRootCert: '/ca.pem' }],
    ['postgresql://u@db/x?sslrootcert=system', { sslMode: 'verify-full', sslRootCert: 'system' }],
    ['postgresql://u@db/x?ssl=true', { sslMode: 'require' }],
    ['postgresql://u@db/x', { sslMode: 'prefer' }],
    [
      'postgresql://u@db/x?application_name=me&options=-c%20geqo%3Doff&connect_timeout=3',
      { applicationName: 'me', options: '-c geqo=off' },
    ],
  ])('reads %s', (uri, expected) => {
    expect(parse(uri)).toMatchObject(expected);
  });

  it.each([
    ['mysql://u@db/x', /form postgresql/],
    ['postgresql://u:50%@db/x', /password has a % that begins no percent-encoded/],
    ['postgresql://u:%00@db/x', /contains %00/],
    ['postgresql://u@::1/x', /brackets/],
    ['postgresql://u@db:70000/x', /1 to 65535/],
    ['postgresql://u@a,b/x', /more than one host/],
    ['postgresql://u@db/x?sslmode=no-verify', /sslmode must be one of disable, allow/],
    ['postgresql://u@db/x?schema=tenant', /"schema" is not supported/],
    ['postgresql://u@db/x?sslmode=require&sslrootcert=system', /too weak for sslrootcert=system/],
    ['postgresql://u@db/x?sslnegotiation=direct', /sslmode=require or stronger/],
  ])('refuses %s with the reason', (uri, reason) => {
    expect(() => parse(uri)).toThrow(reason);
  });

  it('takes what the URI leaves out from the environment given', () => {
    const environment = { PGSSLMODE: 'require', PGUSER: 'env', PGPASSWORD: 'hidden', PGPORT: '7000', PGSSLROOTCERT: '/ca' };
    expect(parse('postgresql://db/x', environment)).toMatchObject({
      sslMode: 'require',
      user: 'env',
      password: 'hidden',
      port: 7000,
      sslRootCert: '/ca',
    });
    expect(parse('postgresql://me:mine@db:1/x?sslmode=disable', environment)).toMatchObject({
      sslMode: 'disable',
      user: 'me',
      password: 'mine',
      port: 1,
    });
  });

  it('never repeats the password in an error', () => {
    expect(() => parse('postgresql://u:hunter2@db:99999/x')).toThrow(
      expect.not.objectContaining({ message: expect.stringContaining('hunter2') }),
    );
  });

  it('writes an endpoint as people do', () => {
    expect(endpointText({ host: '::1', port: 5432 })).toBe('[::1]:5432');
    expect(endpointText({ host: '/run', port: 5432 })).toBe('/run/.s.PGSQL.5432');
    expect(endpointText({ host: 'db', port: 1 })).toBe('db:1');
  });
});
