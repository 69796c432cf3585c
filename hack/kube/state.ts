import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { freePort } from './ports.ts';

/** The users of the control plane's token file. */
export type UserName = 'admin' | 'ops' | 'kcm' | 'kwok';

/** Loopback ports of the programs. */
export interface Ports {
  readonly etcd: number;
  readonly etcdPeer: number;
  readonly apiServer: number;
  readonly controllerManager: number;
  readonly kwok: number;
}

/** What a state directory remembers between starts. */
export interface State {
  readonly dir: string;
  readonly tokens: Readonly<Record<UserName, string>>;
  readonly ports: Ports;
}

const users: Readonly<Record<UserName, { readonly user: string; readonly group: string }>> = {
  // system:masters passes by RBAC and by Priority and Fairness; brokkr:ops is bound to cluster-admin and passes neither.
  admin: { user: 'admin', group: 'system:masters' },
  ops: { user: 'ops', group: 'brokkr:ops' },
  kcm: { user: 'system:kube-controller-manager', group: 'system:authenticated' },
  kwok: { user: 'kwok', group: 'system:masters' },
};

const auditPolicy = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived'],
  rules: [{ level: 'Metadata' }],
};

/**
 * Prepares a state directory (mode 0700) and returns what it holds: tokens and keys are made once, ports are kept while
 * they are free, a serving certificate that ends within a day is removed so that the API server writes a new one.
 */
export async function openState(dir: string, wanted: Partial<Ports>): Promise<State> {
  for (const part of ['', 'certs', 'logs', 'kubeconfigs']) await mkdir(join(dir, part), { recursive: true, mode: 0o700 });
  const saved = await readJson<{ tokens: State['tokens']; ports: Ports }>(join(dir, 'state.json'));
  const token = () => randomBytes(24).toString('base64url');
  const tokens = saved?.tokens ?? { admin: token(), ops: token(), kcm: token(), kwok: token() };
  const ports = await choosePorts({ ...saved?.ports, ...wanted });
  await write(dir, 'state.json', JSON.stringify({ tokens, ports }));
  const rows = (Object.keys(users) as UserName[]).map(
    (name) => `${tokens[name]},${users[name].user},${name},"${users[name].group}"\n`,
  );
  await write(dir, 'tokens.csv', rows.join(''));
  await write(dir, 'audit.yaml', JSON.stringify(auditPolicy)); // JSON is YAML
  if (saved === undefined) await writeServiceAccountKeys(dir);
  await removeOldCertificate(join(dir, 'certs', 'apiserver.crt'));
  return { dir, tokens, ports };
}

async function choosePorts(wanted: Partial<Ports>): Promise<Ports> {
  const taken = new Set<number>();
  const choose = async (preferred: number | undefined): Promise<number> => {
    for (;;) {
      const port = await freePort(preferred !== undefined && taken.has(preferred) ? undefined : preferred);
      if (!taken.has(port)) {
        taken.add(port);
        return port;
      }
    }
  };
  return {
    etcd: await choose(wanted.etcd),
    etcdPeer: await choose(wanted.etcdPeer),
    apiServer: await choose(wanted.apiServer),
    controllerManager: await choose(wanted.controllerManager),
    kwok: await choose(wanted.kwok),
  };
}

async function writeServiceAccountKeys(dir: string): Promise<void> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  await write(dir, 'sa.key', privateKey.export({ type: 'sec1', format: 'pem' }).toString());
  await write(dir, 'sa.pub', publicKey.export({ type: 'spki', format: 'pem' }).toString());
}

async function removeOldCertificate(path: string): Promise<void> {
  const pem = await readFile(path, 'utf8').catch(() => undefined);
  if (pem === undefined) return;
  const dayMs = 86_400_000;
  if (new X509Certificate(pem).validToDate.getTime() < systemClock.now() + dayMs) await rm(path);
}

function write(dir: string, name: string, text: string): Promise<void> {
  return writeFile(join(dir, name), text, { mode: 0o600 });
}

async function readJson<T>(path: string): Promise<T | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as T);
}
