import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadCredentials, readKubeconfig } from './kubeconfig.ts';

const signal = new AbortController().signal;
const PEM = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n';
const PEM_DATA = Buffer.from(PEM).toString('base64');
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'brokkr-kubeconfig-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function file(name: string, content: string): Promise<string> {
  await writeFile(join(directory, name), content);
  return join(directory, name);
}

function config(user: string, cluster = ''): string {
  return `apiVersion: v1
kind: Config
current-context: one
contexts:
  - {name: one, context: {cluster: c, user: u, namespace: team}}
  - {name: two, context: {cluster: c}}
clusters:
  - name: c
    cluster:
      server: https://10.0.0.1:6443/prefix
      ${cluster}
users:
  - name: u
    user: ${user}
`;
}

const authOf = async (user: string) => (await readKubeconfig([await file('config', config(user))], undefined, signal)).auth;

describe('readKubeconfig', () => {
  it('reads server, namespace, certificates inline and by path, and the TLS and proxy settings', async () => {
    const cluster = `certificate-authority-data: ${PEM_DATA}\n      tls-server-name: api\n      proxy-url: http://proxy:3128\n      insecure-skip-tls-verify: true`;
    const path = await file('full', config('{client-certificate: pki/me.crt, client-key: /etc/me.key}', cluster));
    expect(await readKubeconfig([path], undefined, signal)).toEqual({
      server: 'https://10.0.0.1:6443/prefix',
      namespace: 'team',
      ca: { data: PEM },
      certificate: { file: join(directory, 'pki/me.crt') },
      key: { file: '/etc/me.key' },
      tlsServerName: 'api',
      insecureSkipTlsVerify: true,
      proxyUrl: 'http://proxy:3128',
      auth: { kind: 'none' },
    });
  });

  it('knows every way to authenticate', async () => {
    expect(await authOf('{token: secret}')).toEqual({ kind: 'token', token: 'secret' });
    expect(await authOf('{token: old, tokenFile: t}')).toEqual({ kind: 'tokenFile', file: join(directory, 't') });
    expect(await authOf('{username: a, password: 1234}')).toEqual({ kind: 'basic', username: 'a', password: '1234' });
    expect(
      await authOf(
        '{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./bin/get, args: [a, 1], env: [{name: X, value: y}]}}',
      ),
    ).toEqual({
      kind: 'exec',
      plugin: {
        apiVersion: 'client.authentication.k8s.io/v1',
        command: join(directory, 'bin/get'),
        args: ['a', '1'],
        env: { X: 'y' },
        directory,
        provideClusterInfo: false,
      },
    });
    expect(await authOf('{auth-provider: {name: oidc, config: {client-id: a}}}')).toEqual({
      kind: 'provider',
      name: 'oidc',
      config: { 'client-id': 'a' },
    });
  });

  it('takes the context that was asked for, which may have no user', async () => {
    const path = await file('config', config('{token: secret}'));
    expect(await readKubeconfig([path], 'two', signal)).toMatchObject({ namespace: undefined, auth: { kind: 'none' } });
    await expect(readKubeconfig([path], 'three', signal)).rejects.toThrow('kubeconfig has no context named "three"');
  });

  it('reads JSON', async () => {
    const document = {
      'current-context': 'a',
      contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
      clusters: [{ name: 'a', cluster: { server: 'http://127.0.0.1:8001' } }],
      users: [{ name: 'a', user: { token: 't' } }],
    };
    const path = await file('json', JSON.stringify(document));
    expect(await readKubeconfig([path], undefined, signal)).toMatchObject({
      server: 'http://127.0.0.1:8001',
      auth: { token: 't' },
    });
  });

  it('says what is wrong, without quoting the file', async () => {
    await expect(readKubeconfig([join(directory, 'none')], undefined, signal)).rejects.toThrow('does not exist');
    const broken = readKubeconfig([await file('broken', 'users: [{token: "s3cret}')], undefined, signal);
    await expect(broken).rejects.toThrow('cannot be parsed');
    await broken.catch((error) => expect(`${error.message} ${error.cause?.message}`).not.toContain('s3cret'));
    await expect(
      readKubeconfig([await file('ca', config('{}', 'certificate-authority-data: bm9wZQ=='))], undefined, signal),
    ).rejects.toThrow('certificate-authority-data of c is not base64 of PEM');
  });
});

describe('loadCredentials', () => {
  it('merges the files of KUBECONFIG: the first that names a thing wins, missing files are skipped', async () => {
    const first = await file('first', 'current-context: two\nusers:\n  - {name: u, user: {token: first}}\n');
    const second = await file('second', config('{token: second}').replace('{cluster: c}', '{cluster: c, user: u}'));
    const env = { KUBECONFIG: `${join(directory, 'none')}:${first}:${second}`, HOME: '/nowhere' };
    expect(await loadCredentials({}, env, signal)).toMatchObject({
      server: 'https://10.0.0.1:6443/prefix',
      auth: { token: 'first' },
    });
  });

  it('finds ~/.kube/config, and prefers a named file and KUBECONFIG to it', async () => {
    await mkdir(join(directory, '.kube'), { recursive: true });
    await file('.kube/config', config('{token: home}'));
    const named = await file('named', config('{token: named}'));
    expect(await loadCredentials({}, { HOME: directory }, signal)).toMatchObject({ auth: { token: 'home' } });
    expect(await loadCredentials({}, { HOME: directory, KUBECONFIG: named }, signal)).toMatchObject({ auth: { token: 'named' } });
    expect(await loadCredentials({ path: named }, { HOME: directory, KUBECONFIG: '/nowhere' }, signal)).toMatchObject({
      auth: { token: 'named' },
    });
  });

  it('uses the service account of the pod when there is no kubeconfig', async () => {
    const serviceAccountDir = join(directory, 'serviceaccount');
    await mkdir(serviceAccountDir, { recursive: true });
    await file('serviceaccount/namespace', 'brokkr\n');
    const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
    expect(await loadCredentials({ serviceAccountDir }, env, signal)).toMatchObject({
      server: 'https://[fd00::1]:443',
      namespace: 'brokkr',
      ca: { file: join(serviceAccountDir, 'ca.crt') },
      auth: { kind: 'tokenFile', file: join(serviceAccountDir, 'token') },
    });
  });

  it('names the ways out when there is no cluster', async () => {
    await expect(loadCredentials({}, { HOME: '/nowhere' }, signal)).rejects.toThrow('no cluster: set KUBECONFIG');
  });
});
