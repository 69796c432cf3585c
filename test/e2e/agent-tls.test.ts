import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setDefaultCACertificates } from 'node:tls';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { useKube } from '../kube.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker, startProcess, temporaryDirectory } from '../processes.ts';
import { configMap, healthyAt, type Rig, rigOn } from './rig.ts';

const openssl = (...args: string[]) => promisify(execFile)('openssl', args);
let dir: string;
let ca: string;
let rig: Rig;

/** Makes an authority of the test's own, and a certificate for 127.0.0.1 signed by it. */
async function makeCertificates(): Promise<void> {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const file = (name: string) => join(dir, name);
  await openssl('req', '-x509', ...key, '-days', '2', '-subj', '/CN=test authority', '-keyout', file('ca.key'), '-out', ca);
  await openssl(
    ...['req', '-x509', ...key, '-days', '2', '-subj', '/CN=broker', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ...['-addext', 'basicConstraints=critical,CA:FALSE', '-CA', ca, '-CAkey', file('ca.key')],
    ...['-keyout', file('broker.key'), '-out', file('broker.crt')],
  );
}

beforeAll(async () => {
  dir = await temporaryDirectory();
  ca = join(dir, 'ca.crt');
  await makeCertificates();
  setDefaultCACertificates([await readFile(ca, 'utf8')]); // for the calls of the test itself
  const env = { BROKKR__TLS__CERT: join(dir, 'broker.crt'), BROKKR__TLS__KEY: join(dir, 'broker.key') };
  const database = await testDatabase();
  rig = rigOn(await useKube(), await startBroker({ databaseUrl: database.url, env }), database.url);
});

describe('a broker with a certificate of a private authority', () => {
  // N-092, N-102, N-107
  it.each(['stream', 'poll'])('serves an agent that was given the authority by %s', async (transport) => {
    const agent = await rig.register();
    await rig.start(agent, { env: { BROKKR__AGENT__CA_FILE: ca, BROKKR__AGENT__TRANSPORT: transport } });
    const namespace = await rig.kube.namespace('tls');
    const stack = await rig.publish(`tls-${transport}`, configMap(namespace, 'a'), agent.label);
    await rig.status(stack.id, healthyAt(1));
    expect(new URL(rig.broker.url).protocol).toBe('https:');
  });

  // N-107: the way of Node itself
  it('serves an agent that has the authority from NODE_EXTRA_CA_CERTS', async () => {
    const agent = await rig.register();
    await rig.start(agent, { env: { NODE_EXTRA_CA_CERTS: ca } });
    const namespace = await rig.kube.namespace('tls');
    const stack = await rig.publish('tls-extra', configMap(namespace, 'a'), agent.label);
    await rig.status(stack.id, healthyAt(1));
  });

  // N-106
  it('is refused by an agent that trusts the system only, with the reason, and never hears from it', async () => {
    const agent = await rig.register();
    const started = await rig.start(agent);
    const line = await started.line((item) => /ca_file/.test(JSON.stringify(item)));
    expect(JSON.stringify(line)).toMatch(/certificate/);
    const { body } = await rig.broker.api<{ last_heartbeat: string | null; transport: string | null }>(
      'GET',
      `/api/v1/agents/${agent.id}`,
    );
    expect(body.transport).toBeNull();
    expect(body.last_heartbeat).toBeNull();
  });
});

describe('a broker URL without TLS in production', () => {
  const start = (plainHttp: string) =>
    startProcess('agent/main.ts', ['start'], {
      BROKKR__AGENT__BROKER_URL: 'http://broker.example.com:3000',
      BROKKR__AGENT__PAK: 'brokkr_BRtest_0123456789abcdef01234567',
      BROKKR__AGENT__PLAIN_HTTP: plainHttp,
      BROKKR__AGENT__KUBECONFIG_PATH: '/nowhere',
      BROKKR__AGENT__HEALTH_PORT: '0',
      BROKKR__AGENT__DATA_DIR: dir,
    });

  // N-105
  it('is refused when the settings say so, before anything is dialled', async () => {
    const started = await start('refuse');
    await expect(started.line(() => false)).rejects.toThrow('has no TLS');
    expect(await started.stop()).toBe(1);
  });

  // N-105
  it('is warned of otherwise', async () => {
    const started = await start('warn');
    expect((await started.line(({ level }) => level === 'warn')).msg).toContain('not encrypted');
    await started.line(({ msg }) => msg === 'health port is open');
    await started.stop();
  });
});
