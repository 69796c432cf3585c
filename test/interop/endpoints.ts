import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { ToolOptions } from '../../hack/interop/cache.ts';
import { command } from '../../hack/interop/command.ts';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { testDatabase } from '../postgres.ts';

/** One port of a broker, as a client from elsewhere is told about it. */
export interface Endpoint {
  readonly name: 'plain text' | 'TLS';
  readonly scheme: 'http' | 'https';
  /** Host and port. */
  readonly target: string;
  /** File with the certificate to trust. */
  readonly caFile?: string;
}

/** Two brokers on one database: the one takes plain text, the other TLS. */
export interface Endpoints {
  /** For setting up, by REST. */
  readonly broker: InProcessBroker;
  readonly plain: Endpoint;
  readonly tls: Endpoint;
  readonly caFile: string;
  /** For what a test leaves in files. */
  readonly dir: string;
}

/** How the tools of these tests are made: with this process's environment, telling on stderr. */
export const toolOptions: ToolOptions = { env: process.env, progress: (line) => process.stderr.write(`interop: ${line}\n`) };

/** Starts them; stopped at the end of the file. `signal` bounds the making of the certificate. */
export async function startEndpoints(signal: AbortSignal): Promise<Endpoints> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-interop-'));
  afterAll(() => rm(dir, { recursive: true, force: true }));
  const caFile = join(dir, 'broker.crt');
  const keyFile = join(dir, 'broker.key');
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  await command('openssl', [...request, ...subject, '-keyout', keyFile, '-out', caFile], { env: process.env }, signal);
  const database = await testDatabase();
  const broker = await startInProcessBroker({ database });
  const secured = await startInProcessBroker({ database, env: { BROKKR__TLS__CERT: caFile, BROKKR__TLS__KEY: keyFile } });
  const target = ({ url }: InProcessBroker) => url.replace('http://', '');
  return {
    broker,
    caFile,
    dir,
    plain: { name: 'plain text', scheme: 'http', target: target(broker) },
    tls: { name: 'TLS', scheme: 'https', target: target(secured), caFile },
  };
}

/** A small stack's text. */
export function configMap(name: string): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {key: "1"}\n`;
}

/** What the clients in other languages are told; see their sources. */
export function clientEnvironment({ broker, ...ports }: Endpoints, which: 'plain' | 'tls', name: string): ToolOptions['env'] {
  const { target, caFile } = ports[which];
  const told = { BROKKR_TARGET: target, BROKKR_PAK: broker.adminPak, BROKKR_NAME: name, BROKKR_YAML: configMap(name) };
  return {
    ...process.env,
    ...told,
    ...(caFile !== undefined && { BROKKR_CA: caFile }),
    NO_PROXY: '127.0.0.1',
    no_proxy: '127.0.0.1',
  };
}
