import { expect, it } from 'vitest';
import { loadBrokerConfig } from './config.ts';

it('refuses half of a TLS pair before anything opens', () => {
  expect(() => loadBrokerConfig({ BROKKR__TLS__CERT: 'cert.pem' })).toThrow(/TLS__CERT and BROKKR__TLS__KEY go together/);
  expect(loadBrokerConfig({ BROKKR__TLS__CERT: 'cert.pem', BROKKR__TLS__KEY: 'key.pem' }).tls).toMatchObject({
    cert: 'cert.pem',
  });
});

it('refuses old encryption keys that could not be told from the present one', () => {
  const load = (old: string, key?: string) =>
    loadBrokerConfig({ BROKKR__BROKER__ENCRYPTION_OLD_KEYS: old, ...(key && { BROKKR__BROKER__ENCRYPTION_KEY: key }) });
  const hex = 'ab'.repeat(32);
  expect(() => load(`old=${hex}`)).toThrow(/no broker.encryption_key/);
  expect(() => load('old=abc', hex)).toThrow(/form id=hex/);
  expect(() => load(`default=${hex}`, hex)).toThrow(/the same id/);
  expect(load(`old=${hex}`, hex).broker.encryptionOldKeys).toEqual([`old=${hex}`]);
});

it('refuses networks that webhooks could not be allowed to reach', () => {
  const load = (networks: string) => loadBrokerConfig({ BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: networks });
  expect(() => load('10.0.0.0/8,10.0.0.0/33')).toThrow(/10.0.0.0\/33 is not a network/);
  expect(load('10.0.0.0/8,fd00::/8').broker.webhookAllowedNetworks).toHaveLength(2);
});
