import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildControlPlane } from '../hack/kube/binaries.ts';
import { type ControlPlane, startControlPlane } from '../hack/kube/control-plane.ts';

/** What a test process is told when it asks for the run's control plane; JSON. */
export interface RunKube extends Pick<ControlPlane, 'url' | 'caData' | 'kubeconfigPath' | 'identities' | 'auditLogPath'> {
  readonly kubectlPath: string;
}

/** Names the control socket to the test processes, which inherit our environment. */
export const kubeSocketVariable = 'BROKKR_TEST_KUBE_SOCKET';

/**
 * Vitest global setup: offers one control plane with controllers for the run, built and started when the first test file
 * asks. Returns the teardown. A run that is killed takes the programs with it.
 */
export async function setup(): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-test-kube-'));
  const stop = new AbortController();
  let running: Promise<{ readonly controlPlane: ControlPlane; readonly facts: RunKube }> | undefined;
  const control = createServer((socket) => {
    socket.on('error', () => undefined);
    running ??= startForRun(join(dir, 'state'), stop.signal);
    running.then(
      ({ facts }) => socket.end(JSON.stringify(facts)),
      (error: unknown) => socket.end(JSON.stringify({ error: String(error) })),
    );
  });
  const socketPath = join(dir, 'control.sock');
  control.listen(socketPath);
  await once(control, 'listening');
  process.env[kubeSocketVariable] = socketPath;
  return async () => {
    control.close();
    stop.abort(new Error('the test run is over'));
    const started = await running?.catch(() => undefined);
    await started?.controlPlane[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  };
}

async function startForRun(dir: string, signal: AbortSignal) {
  const progress = (line: string) => process.stderr.write(`test control plane: ${line}\n`);
  const binaries = buildControlPlane({ env: process.env, progress }, signal);
  const controlPlane = await startControlPlane({ binaries, dir, progress }, signal);
  try {
    const kubectlPath = await controlPlane.kubectlPath();
    await controlPlane.controllersReady;
    const { url, caData, kubeconfigPath, identities, auditLogPath } = controlPlane;
    return { controlPlane, facts: { url, caData, kubeconfigPath, identities, auditLogPath, kubectlPath } };
  } catch (error) {
    await controlPlane[Symbol.asyncDispose]();
    throw error;
  }
}
