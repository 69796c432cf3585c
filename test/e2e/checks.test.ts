import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../hack/kube/ports.ts';
import type { CheckReport } from '../../lib/check.ts';
import { mintKey } from '../../lib/pak.ts';
import { type Blackhole, openBlackhole } from '../blackhole.ts';
import { makeCertificate } from '../certificates.ts';
import { useKube } from '../kube.ts';
import { openTestDatabase, startOwnPostgres, testDatabase } from '../postgres.ts';
import { startBroker, startProcess, temporaryDirectory } from '../processes.ts';
import { type AgentRecord, type Rig, rigOn } from './rig.ts';

type Env = Readonly<Record<string, string>>;

const closing: (() => unknown)[] = [];
let hole: Blackhole;
beforeAll(async () => {
  hole = await openBlackhole();
});
afterAll(async () => {
  await hole[Symbol.asyncDispose]();
  for (const close of closing) close();
});

/** Runs one check in a process of its own, as in a pod; a step has a second. */
async function check(
  program: 'broker' | 'agent',
  args: readonly string[],
  env: Env = {},
): Promise<CheckReport & { code: number }> {
  const main = fileURLToPath(new URL(`../../${program}/main.ts`, import.meta.url));
  const { PATH = '', HOME = '' } = process.env;
  const command = [main, 'check', ...args, '-o', 'json', '--timeout', '1'];
  return await new Promise((resolve, reject) => {
    execFile(process.execPath, command, { env: { PATH, HOME, ...env } }, (error, stdout, stderr) => {
      if (stdout === '') reject(new Error(stderr, { cause: error }));
      else resolve({ ...JSON.parse(stdout), code: Number(error?.code ?? 0) });
    });
  });
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

describe('the database of a broker', () => {
  let url: string;
  let plainPort: number;

  beforeAll(async () => {
    const dir = await temporaryDirectory();
    await chmod(dir, 0o755); // the server has an account of its own
    const hba = join(dir, 'hba.conf');
    await writeFile(hba, 'local all all trust\nhost all all all scram-sha-256\n');
    plainPort = await freePort();
    const server = await startOwnPostgres({ listen_addresses: '127.0.0.1', port: String(plainPort), hba_file: hba });
    await using db = await openTestDatabase(server.url);
    await db.query(`create role right_user login password 'right'`);
    await db.query('grant create on schema public to right_user');
    url = `postgresql://right_user:right@127.0.0.1:${plainPort}/brokkr?sslmode=disable`;
  });

  it('is ok where a broker could start', async () => {
    const report = await check('broker', ['database'], { DATABASE_URL: url });
    expect(report).toMatchObject({ result: 'ok', code: 0 });
    expect(report.steps.at(-1)?.said).toMatch(/^PostgreSQL \d+ without TLS$/);
    expect(JSON.stringify(report)).not.toContain('right@');
  });

  // N-141: the check and the start of the broker say the same
  it.each([
    ['nxdomain|dns', (right: string) => right.replace('127.0.0.1', 'no-such-host.invalid')],
    ['refused', (right: string) => right.replace(/:\d+\/brokkr/, ':1/brokkr')],
    ['timeout', (right: string) => right.replace(/:\d+\/brokkr/, `:${hole.port}/brokkr`)],
    ['authentication', (right: string) => right.replace('right@', 'wrong@')],
    ['database_missing', (right: string) => right.replace('/brokkr?', '/absent?')],
    ['tls', (right: string) => right.replace('sslmode=disable', 'sslmode=require')],
    ['schema', (right: string) => right, { BROKKR__DATABASE__SCHEMA: 'absent' }],
  ])('%s: told by the check and by the start with the same next step', async (result, broken, env: Env = {}) => {
    const settings = { ...env, DATABASE_URL: broken(url) };
    const report = await check('broker', ['database'], settings);
    expect(report).toMatchObject({ code: 1, result: expect.stringMatching(`^(${result})$`) });
    const limits = { BROKKR__DATABASE__CONNECT_TIMEOUT: '0', BROKKR__DATABASE__ACQUIRE_TIMEOUT: '1s' };
    const broker = await startProcess('broker/main.ts', ['serve'], { ...settings, ...limits });
    const stopped = await broker.line(({ msg }) => msg === 'broker stopped');
    expect(stopped).toMatchObject({ reason: report.result, next: report.next });
    expect(JSON.stringify([report, broker.log])).not.toMatch(/(right|wrong)@/);
  });

  it('is told to be none of ours where it is not set', async () => {
    expect(await check('broker', ['database'])).toMatchObject({
      code: 1,
      result: 'configuration',
      reason: /DATABASE_URL is not set/,
    });
  });

  // N-145
  it('has a port that can be checked alone', async () => {
    expect(await check('broker', ['tcp', '127.0.0.1', String(plainPort)])).toMatchObject({ code: 0, result: 'ok' });
  });
});

describe('the broker of an agent', () => {
  let rig: Rig;
  let agent: AgentRecord;
  let dir: string;

  beforeAll(async () => {
    const database = await testDatabase();
    rig = rigOn(await useKube(), await startBroker({ databaseUrl: database.url }), database.url);
    agent = await rig.register();
    dir = await temporaryDirectory();
    await makeCertificate(dir, 'ca', 'ca.test');
    await makeCertificate(dir, 'good', '127.0.0.1', { ca: 'ca' });
    await makeCertificate(dir, 'elsewhere', 'broker.example.com', { ca: 'ca' });
    await makeCertificate(dir, 'expired', '127.0.0.1', { ca: 'ca', valid: ['20200101000000Z', '20200201000000Z'] });
    await makeCertificate(dir, 'early', '127.0.0.1', { ca: 'ca', valid: ['20700101000000Z', '20700201000000Z'] });
  });

  const broker = (brokerUrl: string, env: Env = {}) =>
    check('agent', ['broker'], { BROKKR__AGENT__BROKER_URL: brokerUrl, BROKKR__AGENT__PAK: agent.pak, ...env });
  const serveTls = async (name: string) => {
    const [key, cert] = [await readFile(join(dir, `${name}.key`)), await readFile(join(dir, `${name}.crt`))];
    return `https://127.0.0.1:${await listen(createTlsServer({ key, cert }))}`;
  };

  it('is ok where the key is known', async () => {
    const report = await broker(rig.broker.url);
    expect(report).toMatchObject({ result: 'ok', code: 0 });
    expect(report.steps.map(({ tried }) => tried)).toEqual([
      'read key and certificates',
      expect.stringMatching(/^connect to 127\.0\.0\.1:\d+$/),
      'ask the broker whose the key is',
    ]);
    expect(JSON.stringify(report)).not.toContain(agent.pak);
  });

  // N-140
  it('has nine faults with nine messages', async () => {
    const other = `http://127.0.0.1:${await listen(createServer((_, response) => response.writeHead(404).end('nginx')))}`;
    const ca = { BROKKR__AGENT__CA_FILE: join(dir, 'ca.crt') };
    const reports = [
      await broker(other), // a wrong host that answers
      await broker('http://no-such-host.invalid:3000'),
      await broker(`http://127.0.0.1:${hole.port}`),
      await broker('http://127.0.0.1:1'),
      await broker(await serveTls('good')),
      await broker(await serveTls('elsewhere'), ca),
      await broker(await serveTls('expired'), ca),
      await broker(await serveTls('early'), ca),
      await broker(rig.broker.url, { BROKKR__AGENT__PAK: mintKey().pak }),
    ];
    expect(reports.map(({ result }) => (result === 'dns' ? 'nxdomain' : result))).toEqual([
      ...[
        'status',
        'nxdomain',
        'timeout',
        'refused',
        'certificate',
        'certificate',
        'certificate',
        'certificate',
        'authentication',
      ],
    ]);
    expect(new Set(reports.map(({ reason }) => reason)).size).toBe(9);
    expect(reports.every(({ code, next }) => code === 1 && next !== undefined)).toBe(true);
    expect(new Set(reports.map(({ next }) => next)).size).toBe(9);
  });

  it('is reached through the proxy that the agent would take', async () => {
    const proxy = await freePort();
    const report = await broker('http://broker.example.com:3000', { HTTP_PROXY: `http://user:secret@127.0.0.1:${proxy}` });
    expect(report).toMatchObject({
      result: 'refused',
      steps: [{ said: `the way leads through the proxy 127.0.0.1:${proxy}` }, {}],
    });
    expect(JSON.stringify(report)).not.toContain('secret');
  });

  // N-144, N-148
  it('can be asked for its health, and its name looked up', async () => {
    const health = await check('agent', ['http', `${rig.broker.url}/healthz`]);
    expect(health).toMatchObject({ code: 0, result: 'ok' });
    expect(health.steps.at(-1)?.said).toMatch(/^HTTP 200/);
    const report = await check('agent', ['dns', 'no-such-host.invalid']);
    expect(report).toMatchObject({ code: 1, result: expect.stringMatching(/^(nxdomain|dns)$/) });
  });

  it('is checked beside its API server', async () => {
    const kubernetes = (path: string) => check('agent', ['kubernetes'], { BROKKR__AGENT__KUBECONFIG_PATH: path });
    expect(await kubernetes(agent.kubeconfigPath)).toMatchObject({ code: 0, result: 'ok', steps: [{}, {}, { said: /^v1\./ }] });
    const config = await readFile(agent.kubeconfigPath, 'utf8');
    const broken = async (name: string, text: string) => {
      await writeFile(join(dir, name), text);
      return await kubernetes(join(dir, name));
    };
    expect(await broken('token', config.replace(/token: .*/, 'token: wrong'))).toMatchObject({
      code: 1,
      result: 'authentication',
    });
    expect(await broken('port', config.replace(/(127\.0\.0\.1):\d+/, '$1:1'))).toMatchObject({ code: 1, result: 'refused' });
    expect(await broken('name', config.replace(/current-context:.*/, ''))).toMatchObject({
      code: 1,
      result: 'configuration',
    });
  });
});
