import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { type Blackhole, openBlackhole } from '../blackhole.ts';
import { makeCertificate } from '../certificates.ts';
import { startTcpProxy } from '../fault-proxy.ts';
import { useKube } from '../kube.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker, type TestProcess, temporaryDirectory } from '../processes.ts';
import { type Rig, rigOn } from './rig.ts';

let rig: Rig;
let hole: Blackhole;
let dir: string;

beforeAll(async () => {
  const database = await testDatabase();
  rig = rigOn(await useKube(), await startBroker({ databaseUrl: database.url }), database.url);
  hole = await openBlackhole();
  dir = await temporaryDirectory();
});
afterAll(() => hole[Symbol.asyncDispose]());

/** Waits for what /readyz says to fit. */
async function readiness(started: TestProcess, fits: RegExp): Promise<void> {
  const { address } = await started.line(({ msg }) => msg === 'health port is open');
  const url = `http://${String(address).replace('0.0.0.0', '127.0.0.1')}/readyz`;
  for (let text = ''; !fits.test(text); await pause(50)) {
    const answer = await fetch(url);
    text = `${answer.status} ${await answer.text()}`;
  }
}

// N-140: what the checks print is what the agent itself says
describe('an agent that cannot reach its broker is not ready and says why, with what to look at', () => {
  it.each(['stream', 'poll'])('nobody listens, by %s', async (transport) => {
    const started = await rig.start(await rig.register(), {
      brokerUrl: 'http://127.0.0.1:1',
      env: { BROKKR__AGENT__TRANSPORT: transport },
    });
    await readiness(started, /^503 .*connect ECONNREFUSED 127\.0\.0\.1:1 \(refused\): compare the port/);
    await started.line(({ code, error }) => code === 'refused' && String(error).includes('(refused): compare the port'));
    await started.stop();
  });

  it('what is sent is dropped', async () => {
    const started = await rig.start(await rig.register(), {
      ...{ brokerUrl: `http://127.0.0.1:${hole.port}`, env: { BROKKR__AGENT__TRANSPORT: 'poll' } },
    });
    await readiness(started, /^503 .*\(timeout\): look for a NetworkPolicy/);
    await started.stop();
  });

  it('its certificate is of an authority that nobody trusts', async () => {
    await makeCertificate(dir, 'own', '127.0.0.1');
    const tls = { key: await readFile(join(dir, 'own.key')), cert: await readFile(join(dir, 'own.crt')) };
    const server = createServer(tls).listen(0, '127.0.0.1');
    const port = await new Promise<number>((resolve) =>
      server.once('listening', () => resolve((server.address() as { port: number }).port)),
    );
    const started = await rig.start(await rig.register(), { brokerUrl: `https://127.0.0.1:${port}` });
    await readiness(started, /^503 .*the broker certificate is self-signed: set ca_file/);
    await started.stop();
    server.close();
  });
});

describe('an agent whose API server cannot be reached is not ready and says why', () => {
  it('from the start on, when it might only be a standby', async () => {
    const kubeconfigPath = join(dir, 'nowhere');
    const agent = await rig.register();
    await writeFile(
      kubeconfigPath,
      (await readFile(agent.kubeconfigPath, 'utf8')).replace(new URL(rig.kube.url).host, '127.0.0.1:1'),
    );
    const started = await rig.start(agent, { kubeconfigPath });
    await readiness(started, /^503 the API server .*: connect ECONNREFUSED .* \(refused\): compare the port/);
    await started.stop();
  });

  it('when the connection is lost', async () => {
    const agent = await rig.register();
    const { hostname, port } = new URL(rig.kube.url);
    await using proxy = await startTcpProxy({ target: { host: hostname, port: Number(port) } });
    const kubeconfigPath = join(dir, 'kubeconfig');
    const config = await readFile(agent.kubeconfigPath, 'utf8');
    await writeFile(kubeconfigPath, config.replace(`${hostname}:${port}`, `127.0.0.1:${proxy.port}`));
    const started = await rig.start(agent, { kubeconfigPath });
    await readiness(started, /^200 ok/);
    proxy.cut();
    await readiness(
      started,
      /^503 the API server of the cluster does not answer: connect ECONNREFUSED .* \(refused\): compare the port/,
    );
  });
});
