import { expect, it } from 'vitest';
import { loadBrokerConfig } from './config.ts';

it('refuses half of a TLS pair before anything opens', () => {
  expect(() => loadBrokerConfig({ BROKKR__TLS__CERT: 'cert.pem' })).toThrow(/TLS__CERT and BROKKR__TLS__KEY go together/);
  expect(loadBrokerConfig({ BROKKR__TLS__CERT: 'cert.pem', BROKKR__TLS__KEY: 'key.pem' }).tls).toMatchObject({
    cert: 'cert.pem',
  });
});
