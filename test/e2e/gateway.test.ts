import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect, setDefaultCACertificates } from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Authority, createAuthority } from '../certificate-authority.ts';
import { say, startGateway } from '../gateway-rig.ts';
import { useKube } from '../kube.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker, temporaryDirectory } from '../processes.ts';
import { configMap, healthyAt, type Rig, rigOn } from './rig.ts';

const SESSION = '/brokkr.v1.AgentSync/Session';
/** What agents trust, and what signed the broker's own certificate; agents know nothing of the second one. */
let edge: Authority;
let inner: Authority;
let home: string;
/** The broker in clear text and the broker on TLS, each behind a gateway. */
let plain: Rig;
let secure: Rig;

beforeAll(async () => {
  home = await temporaryDirectory();
  [edge, inner] = await Promise.all([createAuthority('edge authority'), createAuthority('inner authority')]);
  await edge.issue(join(home, 'edge'), { hosts: ['127.0.0.1'] });
  await inner.issue(join(home, 'inner'), { hosts: ['127.0.0.1'] });
  setDefaultCACertificates([await readFile(inner.certFile, 'utf8')]); // for the calls of the test itself
  const kube = await useKube();
  const start = async (env: Readonly<Record<string, string>>) => {
    const { url } = await testDatabase();
    return rigOn(kube, await startBroker({ databaseUrl: url, env: { BROKKR__BROKER__POLL_HOLD: '2s', ...env } }), url);
  };
  plain = await start({});
  secure = await start({ BROKKR__TLS__CERT: join(home, 'inner/tls.crt'), BROKKR__TLS__KEY: join(home, 'inner/tls.key') });
});

/** The serial number of the certificate that a new connection is shown. */
function shown(port: number): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
  });
}

/** An agent behind a gateway of its own, and what was published to it. */
async function startBehindGateway(rig: Rig, transport: string, env: Readonly<Record<string, string>> = {}) {
  const certificate = await temporaryDirectory();
  await edge.issue(certificate, { hosts: ['127.0.0.1'] });
  const gateway = await startGateway([certificate], [rig.broker.url], env);
  const agent = await rig.register();
  const brokerUrl = `https://127.0.0.1:${gateway.port}`;
  await rig.start(agent, { brokerUrl, env: { BROKKR__AGENT__CA_FILE: edge.certFile, BROKKR__AGENT__TRANSPORT: transport } });
  const namespace = await rig.kube.namespace('gateway');
  const publish = (value: string) => rig.publish(`through-${agent.label}`, configMap(namespace, 'a', value), agent.label);
  // the access log has a line for each request that has ended
  const endedSessions = () => gateway.log.filter(({ path }) => path === SESSION).length;
  return { certificate, gateway, publish, endedSessions };
}

describe('an agent', () => {
  // N-007, N-100, N-101, N-092
  it.each(['stream', 'poll'])('works through a gateway that speaks plain HTTP to the broker, by %s', async (transport) => {
    const { gateway, publish, endedSessions } = await startBehindGateway(plain, transport);
    const stack = await publish('1');
    await plain.status(stack.id, healthyAt(1));
    const before = endedSessions();
    await publish('2');
    await plain.status(stack.id, healthyAt(2));
    expect(endedSessions()).toBe(before);
    const polls = gateway.log.filter(
      ({ msg, path, status }) => msg === 'request' && `${path}`.endsWith('/Poll') && status === 200,
    );
    expect(polls.length > 1).toBe(transport === 'poll');
  });

  // N-103, N-107
  it.each(['stream', 'poll'])(
    'works through a gateway that encrypts to the broker again with a private authority, by %s',
    async (transport) => {
      const { publish } = await startBehindGateway(secure, transport, { BROKKR__GATEWAY__UPSTREAM_CA_FILE: inner.certFile });
      const stack = await publish('1');
      await secure.status(stack.id, healthyAt(1));
    },
  );

  // N-104
  it('keeps its stream while the gateway takes a new certificate into use', async () => {
    const { certificate, gateway, publish, endedSessions } = await startBehindGateway(plain, 'stream');
    const stack = await publish('1');
    await plain.status(stack.id, healthyAt(1));
    const [before, ended] = [await shown(gateway.port), endedSessions()];
    await edge.issue(certificate, { hosts: ['127.0.0.1'] });
    await expect.poll(() => shown(gateway.port)).not.toBe(before);
    await publish('2');
    await plain.status(stack.id, healthyAt(2));
    expect(endedSessions()).toBe(ended);
  });
});

describe('the port of a broker without TLS', () => {
  it('is explained at both ends to a client that speaks TLS', async () => {
    const port = new URL(plain.broker.url).port;
    const { text } = await say('curl', ['-sS', `https://127.0.0.1:${port}/healthz`]);
    expect(text).toMatch(/wrong version number/);
    await plain.broker.line(({ msg }) => msg === 'a client speaks tls on a plain port');
    const openssl = await say('openssl', ['s_client', '-connect', `127.0.0.1:${port}`]);
    expect(openssl.text).toMatch(/wrong version number|packet length too long/);
  });
});
