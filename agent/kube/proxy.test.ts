import { describe, expect, it } from 'vitest';
import { proxyFromEnv } from './proxy.ts';

const HTTPS_PROXY = 'http://proxy:3128';

describe('proxyFromEnv', () => {
  it('takes the proxy of the scheme, in either case, and adds a missing scheme', () => {
    expect(proxyFromEnv('https://api.example.com', { HTTPS_PROXY })).toBe(HTTPS_PROXY);
    expect(proxyFromEnv('https://api.example.com', { https_proxy: 'proxy:3128' })).toBe(HTTPS_PROXY);
    expect(proxyFromEnv('http://api.example.com', { HTTPS_PROXY })).toBeUndefined();
    expect(proxyFromEnv('https://api.example.com', {})).toBeUndefined();
  });

  it.each([
    ['https://api.example.com', 'example.com', true],
    ['https://api.example.com', '.example.com', true],
    ['https://api.example.com', 'other.com, *', true],
    ['https://api.example.com', 'ample.com', false],
    ['https://api.example.com:6443', 'api.example.com:443', false],
    ['https://api.example.com', 'api.example.com:443', true],
    ['https://10.96.0.1', '10.96.0.0/16', true],
    ['https://10.97.0.1', '10.96.0.0/16', false],
    ['https://[fd00::1]:6443', 'fd00::/8', true],
    ['https://[fd00::1]:6443', 'fd00::1', true],
    ['https://127.0.0.1:6443', '', true],
  ])('%s with NO_PROXY %j goes direct: %j', (server, NO_PROXY, direct) => {
    expect(proxyFromEnv(server, { HTTPS_PROXY, NO_PROXY })).toBe(direct ? undefined : HTTPS_PROXY);
  });
});
