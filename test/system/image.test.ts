import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { chmod, chown, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { load } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inRoot } from '../../hack/image/chroot.ts';
import { writeLayout } from '../../hack/image/layout.ts';
import { type ImageConfig, runFinalStage, variablesOf } from '../../hack/image/stages.ts';
import { freePort } from '../../hack/kube/ports.ts';
import { ROOT } from '../../hack/process.ts';
import manifest from '../../package.json' with { type: 'json' };
import { installPrograms } from '../debian.ts';
import { openTestDatabase, startOwnPostgres } from '../postgres.ts';
import { type Program, temporaryDirectory } from '../processes.ts';
import { type Delivery, deliver } from './delivery.ts';

const EPOCH = 1_700_000_000;
/** The charts' podSecurityContext. */
const UID = 65_532;
const run = promisify(execFile);

let home: string;
let rootfs: string;
let archive: string;
let built: { readonly digest: string; readonly config: ImageConfig };
/** Directories of ours by the path where a pod has a volume. */
let volumes: Record<'/tmp' | '/var/lib/brokkr' | '/mnt', string>;

beforeAll(async () => {
  await installPrograms({ mmdebstrap: 'mmdebstrap', skopeo: 'skopeo' });
  home = await temporaryDirectory();
  [rootfs, archive] = [join(home, 'image/rootfs'), join(home, 'image/image.tar')];
  process.env.SOURCE_DATE_EPOCH = String(EPOCH);
  built = JSON.parse((await run(process.execPath, [join(ROOT, 'hack/image/main.ts'), join(home, 'image')])).stdout);
  volumes = { '/tmp': join(home, 'tmp'), '/var/lib/brokkr': join(home, 'data'), '/mnt': join(home, 'lent') };
  for (const path of Object.values(volumes)) {
    await mkdir(path);
    await chown(path, UID, UID);
  }
});

/** A program in the image as a kubelet would start it: the user of the charts, a read-only root, volumes. */
function inImage(name: string): [string, ...string[]] {
  const env = variablesOf(built.config);
  return [...inRoot(rootfs, { user: built.config.User, readOnly: true, volumes, env }), name];
}

async function say(...words: readonly [string, ...string[]]): Promise<string> {
  const [command, ...rest] = [...inImage(words[0]), ...words.slice(1)] as [string, ...string[]];
  return await run(command, rest).then(
    ({ stdout, stderr }) => stdout + stderr,
    ({ code, stdout, stderr }) => `${stdout}${stderr}exit code ${code}`,
  );
}

/** Copies a file or directory to where programs in the image see it. */
async function lend(path: string): Promise<string> {
  const there = join(volumes['/mnt'], basename(path));
  await cp(path, there, { recursive: true });
  await run('chown', ['-R', `${UID}:${UID}`, there]);
  return join('/mnt', basename(path));
}

/** Every file of the image with its size, time, owner and mode. */
async function listing(): Promise<string> {
  const { stdout } = await run('find', [rootfs, '-printf', '%P %s %T@ %C@ %U:%G %m\n'], { maxBuffer: 1 << 28 });
  return stdout.split('\n').sort().join('\n');
}

describe('the image that hack/image builds from the Dockerfile', { timeout: 15 * 60_000 }, () => {
  it('is read by other tools, and each digest is right', async () => {
    const copy = join(home, 'copy');
    await run('skopeo', ['copy', '--insecure-policy', `oci-archive:${archive}`, `dir:${copy}`]); // checks all of them
    const { config } = JSON.parse((await run('skopeo', ['inspect', '--config', `dir:${copy}`])).stdout);
    expect(config).toEqual(built.config);
    const { Digest } = JSON.parse((await run('skopeo', ['inspect', `oci-archive:${archive}`])).stdout);
    expect(Digest).toBe(built.digest);
  });

  it('has the same digest when it is built again', async () => {
    const again = join(home, 'again');
    const config = await runFinalStage(again, join(home, 'image/build'));
    const digest = await writeLayout(join(home, 'again.tar'), {
      rootfs: again,
      config,
      arch: process.arch === 'x64' ? 'amd64' : 'arm64',
      epoch: EPOCH,
      tag: manifest.version,
    });
    expect(digest).toBe(built.digest);
  });

  it('has a bill of materials with every package in it', async () => {
    const { components } = JSON.parse(await readFile(join(home, 'image/sbom.cdx.json'), 'utf8'));
    const named = (start: string) => components.filter(({ purl }: { purl: string }) => purl.startsWith(start));
    const debian = (await say('dpkg-query', '--show'))
      .trim()
      .replaceAll(/(:\w+)?\t/g, ' ')
      .split('\n');
    const ours = named('pkg:deb/debian/').map(({ name, version }: { name: string; version: string }) => `${name} ${version}`);
    expect(ours.sort()).toEqual(debian.sort());
    expect(named('pkg:npm/node-linux-')).toHaveLength(1);
    expect(named('pkg:npm/%40embedded-postgres')).toEqual([]);
  });

  it('has the user and the programs that the charts ask for', async () => {
    for (const [chart, command] of [
      ['brokkr-broker', 'broker'],
      ['brokkr-agent', 'agent'],
    ] as const) {
      const values = load(await readFile(join(ROOT, 'deploy/charts', chart, 'values.yaml'), 'utf8')) as {
        podSecurityContext: { runAsUser: number; runAsGroup: number };
      };
      const { runAsUser, runAsGroup } = values.podSecurityContext;
      expect(built.config.User).toBe(`${runAsUser}:${runAsGroup}`);
      const template = await readFile(join(ROOT, 'deploy/charts', chart, 'templates/deployment.yaml'), 'utf8');
      expect(template).toContain(`command: [brokkr-${command}, `);
    }
    for (const name of Object.keys(manifest.bin)) expect(await say(name, '--version')).toBe(`${manifest.version}\n`);
    expect(await say('id')).toBe(`uid=${UID}(brokkr) gid=${UID}(brokkr) groups=${UID}(brokkr)\n`);
    const [command, ...words] = inRoot(rootfs, { user: '0:0', readOnly: true });
    await expect(run(command, [...words, 'touch', '/opt/brokkr/x'])).rejects.toThrow('Read-only file system');
  });
});

describe('its programs, as the user of the charts, without privileges, on a read-only root', { timeout: 5 * 60_000 }, () => {
  let delivery: Delivery;
  let port: number;
  let before: string;

  beforeAll(async () => {
    const dir = await temporaryDirectory();
    await chmod(dir, 0o755); // the server has an account of its own
    const hba = join(dir, 'hba.conf');
    await writeFile(hba, 'local all all trust\nhost all all all scram-sha-256\n');
    port = await freePort();
    const server = await startOwnPostgres({ listen_addresses: '127.0.0.1', port: String(port), hba_file: hba });
    await using db = await openTestDatabase(server.url);
    await db.query(`create role right_user login password 'right'`);
    await db.query('grant create on schema public to right_user');
    before = await listing();
    const databaseUrl = `postgresql://right_user:right@127.0.0.1:${port}/brokkr?sslmode=disable`;
    delivery = await deliver({ databaseUrl, program: (name): Program => inImage(name), dataDir: '/var/lib/brokkr', lend });
  });

  it('are ready', async () => {
    const admin = delivery.agent.log.find(({ msg }) => msg === 'health port is open')?.address;
    for (const url of [delivery.broker.url, delivery.gateway.adminUrl, `http://${admin}`]) {
      expect((await fetch(`${url}/readyz`)).status).toBe(200);
    }
  });

  // N-144, N-145, N-148
  it('can be looked at with wget, nc and nslookup', async () => {
    expect(await say('wget', '-qO-', `${delivery.broker.url}/healthz`)).toMatch(/ok/i);
    expect(await say('nc', '-zv', '127.0.0.1', String(port))).toContain('succeeded');
    expect(await say('nc', '-zv', '127.0.0.1', '1')).toContain('refused');
    const names = await serveName('brokkr-broker', [10, 0, 0, 7]);
    const lookup = await say('nslookup', `-port=${names}`, '-type=A', 'brokkr-broker', '127.0.0.1');
    expect(lookup).toContain('Address: 10.0.0.7');
  });

  it('check from inside what they need', async () => {
    expect(await say('brokkr-broker', 'check', 'tcp', '127.0.0.1', String(port))).toContain('result: ok');
    expect(await say('brokkr-agent', 'check', 'http', `${delivery.broker.url}/healthz`)).toContain('result: ok');
    expect(await say('brokkr-agent', 'check', 'tcp', '127.0.0.1', '1')).toContain('result: refused');
  });

  it('end at SIGTERM, and have written to their volumes alone', async () => {
    for (const process_ of [delivery.agent, delivery.gateway, delivery.broker]) expect(await process_.stop()).toBe(0);
    expect(await readdir(volumes['/tmp'])).toEqual([]);
    expect(await readdir(volumes['/var/lib/brokkr'])).not.toEqual([]);
    expect(await listing()).toBe(before);
  });
});

/** A DNS server that knows one address; returns its port. */
async function serveName(name: string, address: readonly number[]): Promise<number> {
  const socket = createSocket('udp4', (question, { port, address: from }) => {
    const end = question.indexOf(0, 12) + 5;
    const known = question.subarray(13, end - 5).toString('latin1') === name;
    const flags = [0x81, known ? 0x80 : 0x83, 0, 1, 0, known ? 1 : 0, 0, 0, 0, 0];
    const record = known ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, ...address] : [];
    const parts = [question.subarray(0, 2), Buffer.from(flags), question.subarray(12, end), Buffer.from(record)];
    socket.send(Buffer.concat(parts), port, from);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  afterAll(() => void socket.close());
  return socket.address().port;
}
