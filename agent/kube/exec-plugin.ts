import { spawn } from 'node:child_process';
import { BrokkrError } from '#lib/errors.ts';
import type { Env, ExecPlugin } from './kubeconfig.ts';

/** A plugin that takes longer is killed. */
const TIMEOUT_MS = 60_000;
/** An ExecCredential is a few KiB; a plugin that writes more is broken. */
const MAX_OUTPUT_BYTES = 1024 * 1024;

/** What a credential plugin answered. */
export interface ExecCredential {
  readonly token: string | undefined;
  /** Client certificate chain, PEM. */
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  /** Wall-clock milliseconds; absent when it holds until the server refuses it. */
  readonly expiresAt: number | undefined;
}

/** The cluster as told to a plugin that asks for it (`provideClusterInfo`). */
export interface ExecCluster {
  readonly server: string;
  readonly ca: string | undefined;
}

/**
 * Runs a credential plugin (`client.authentication.k8s.io`, not interactive) and reads its ExecCredential. Rejects with
 * `unauthorized` and the last line of its standard error when it fails. Written here because client-node costs 90 MB of
 * memory and does not pass KUBERNETES_EXEC_INFO.
 */
export async function runExecPlugin(plugin: ExecPlugin, cluster: ExecCluster, env: Env): Promise<ExecCredential> {
  const output = await run(plugin, { ...env, ...plugin.env, KUBERNETES_EXEC_INFO: JSON.stringify(execInfo(plugin, cluster)) });
  let status: Readonly<Record<string, unknown>> | undefined;
  try {
    status = JSON.parse(output).status;
  } catch {
    // The output may be a token: it never enters an error.
  }
  if (!status) throw new BrokkrError('unauthorized', `credential plugin ${plugin.command} did not answer with an ExecCredential`);
  const expiry = Date.parse(String(status.expirationTimestamp));
  return {
    token: optionalText(status.token),
    certificate: optionalText(status.clientCertificateData),
    key: optionalText(status.clientKeyData),
    expiresAt: Number.isNaN(expiry) ? undefined : expiry,
  };
}

function execInfo(plugin: ExecPlugin, { server, ca }: ExecCluster): unknown {
  const info = {
    server,
    ...(ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }),
  };
  return {
    apiVersion: plugin.apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false, ...(plugin.provideClusterInfo ? { cluster: info } : {}) },
  };
}

function run(plugin: ExecPlugin, env: Env): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(plugin.command, [...plugin.args], { env, timeout: TIMEOUT_MS, stdio: ['ignore', 'pipe', 'pipe'] });
    const stdout: Buffer[] = [];
    let bytes = 0;
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_OUTPUT_BYTES) child.kill('SIGKILL');
      else stdout.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString('utf8')).slice(-4096);
    });
    child.on('error', (error) =>
      reject(new BrokkrError('unauthorized', `credential plugin ${plugin.command} cannot be run`, { cause: error })),
    );
    child.on('close', (code, killedBy) => {
      if (code === 0) resolve(Buffer.concat(stdout).toString('utf8'));
      else
        reject(
          new BrokkrError(
            'unauthorized',
            `credential plugin ${plugin.command} ended with ${killedBy ?? code}: ${lastLine(stderr)}`,
          ),
        );
    });
  });
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 256) ?? '';
}

function optionalText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
