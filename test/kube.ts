import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { buildControlPlane } from '../hack/kube/binaries.ts';
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from '../hack/kube/control-plane.ts';
import { createKubeClient, type KubeResponse } from '../hack/kube/request.ts';
import { kubeSocketVariable, type RunKube } from './global-kube.ts';
import { type AuditEvent, type AuditFilter, createAuditLog } from './kube-audit.ts';
import { createIdentity, type IdentityOptions, type TestIdentity, unique, until } from './kube-identity.ts';

/** A real API server and what tests do with it. Everything asks as cluster admin, outside RBAC and rate limits. */
export interface Kube extends RunKube {
  /** Creates a namespace `prefix-<random>` in which pods can be created, and returns its name. Nobody needs to delete it. */
  namespace(prefix: string): Promise<string>;
  /** Creates a user; its rights hold when this returns. */
  identity(name: string, options?: IdentityOptions): Promise<TestIdentity>;
  /** One request, no retry; a status of 400 and more is an answer too. PATCH needs a content-type header. */
  request(method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<KubeResponse>;
  /** What the server was asked, complete for every request answered before the call. */
  auditEvents(filter?: AuditFilter): Promise<AuditEvent[]>;
  /** A value for `AuditFilter.since`. */
  auditMark(): Promise<number>;
  /** Runs kubectl with the admin's kubeconfig and returns its stdout; rejects when it fails. */
  kubectl(...args: string[]): Promise<string>;
}

/** A control plane of one test, which may stop and kill it. */
export interface OwnKube extends Kube, AsyncDisposable {
  readonly controlPlane: ControlPlane;
}

/** No single step of a test's set-up takes longer. */
const stepTimeoutMs = 60_000;

/** The run's shared control plane with controllers. The first call of a run starts it (5 s; builds it, minutes, once a machine). */
export async function useKube(): Promise<Kube> {
  const socketPath = process.env[kubeSocketVariable];
  if (socketPath === undefined) throw new Error('useKube works under vitest with test/global-kube.ts as globalSetup');
  const answer = JSON.parse(await text(connect(socketPath))) as RunKube | { readonly error: string };
  if ('error' in answer) throw new Error(answer.error);
  return createKube(answer, { withControllers: true });
}

/** What `startOwnKube` may be told. */
export interface OwnKubeOptions extends Pick<ControlPlaneOptions, 'withControllers' | 'audit' | 'ports'> {
  /** Kept when given; default: a temporary directory, removed at the end. */
  readonly dir?: string;
}

/**
 * Starts a second control plane (3 s, 300 MB), without controllers unless asked: for a test that stops the server or
 * needs a cluster of its own. Dispose of it: `await using kube = await startOwnKube()`. Also works outside vitest.
 */
export async function startOwnKube({ dir, withControllers = false, ...rest }: OwnKubeOptions = {}): Promise<OwnKube> {
  const home = dir ?? (await mkdtemp(join(tmpdir(), 'brokkr-own-kube-')));
  const progress = (line: string) => process.stderr.write(`own control plane: ${line}\n`);
  const { signal } = new AbortController(); // the waits inside have bounds of their own
  const binaries = buildControlPlane({ env: process.env, progress }, signal);
  const controlPlane = await startControlPlane({ ...rest, binaries, dir: home, progress, withControllers }, signal);
  const facts: RunKube = { ...controlPlane, kubectlPath: await controlPlane.kubectlPath() };
  await controlPlane.controllersReady;
  return {
    ...createKube(facts, { withControllers }),
    controlPlane,
    async [Symbol.asyncDispose]() {
      await controlPlane[Symbol.asyncDispose]();
      if (dir === undefined) await rm(home, { recursive: true, force: true });
    },
  };
}

function createKube(facts: RunKube, { withControllers }: { readonly withControllers: boolean }): Kube {
  const { url, caData, kubeconfigPath, identities, auditLogPath, kubectlPath } = facts;
  const client = createKubeClient({ url, caData, token: identities.admin.token });
  const audit = createAuditLog(auditLogPath, client);
  const step = () => AbortSignal.timeout(stepTimeoutMs);
  const request: Kube['request'] = (method, path, body, headers = {}) => client({ method, path, body, headers }, step());
  const create = async (path: string, body: object) => {
    const answer = await request('POST', path, body);
    if (answer.status !== 201) throw new Error(`POST ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  };
  return {
    ...{ url, caData, kubeconfigPath, identities, auditLogPath, kubectlPath, request },
    auditEvents: (filter = {}) => audit.events(filter, step()),
    auditMark: () => audit.mark(step()),
    async kubectl(...args) {
      const options = {
        env: { HOME: dirname(kubeconfigPath), PATH: '/usr/bin:/bin' },
        maxBuffer: 64 * 1024 * 1024,
        signal: step(),
      };
      const { stdout } = await promisify(execFile)(kubectlPath, ['--kubeconfig', kubeconfigPath, ...args], options);
      return stdout;
    },
    async namespace(prefix) {
      const name = unique(prefix);
      await create('/api/v1/namespaces', { metadata: { name } });
      const account = `/api/v1/namespaces/${name}/serviceaccounts/default`;
      if (withControllers) await until(async () => (await request('GET', account)).status === 200, step());
      return name;
    },
    identity: (name, rights = {}) =>
      createIdentity(name, rights, { url, caData, dir: dirname(kubeconfigPath), request: client }, step()),
  };
}
