import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MeasuredControlPlane } from './cluster.ts';
import { type Measured, type MeasuredBroker, measure } from './environment.ts';

/** A real agent with a session with the broker. */
export interface MeasuredAgent extends AsyncDisposable {
  readonly id: string;
  /** Of the process that runs now. */
  readonly pid: number;
  /** Ends the process; resolves when the broker knows. */
  stop(): Promise<void>;
  /** Starts a process with what the one before left on disk; resolves when the broker has its session. */
  start(): Promise<Start>;
  /** `stop`, then `start`. */
  restart(): Promise<Start>;
}

/** How a start went. */
export interface Start {
  /** When the process was started, in milliseconds since the epoch. */
  readonly startedAtMs: number;
  /** Until the agent had read its inventories and opened a session, in milliseconds, by its log. */
  readonly openedMs: number;
  /** Until REST told of the session, in milliseconds. */
  readonly connectedMs: number;
}

/** Registers an agent and starts its process as users do: the launcher, default settings, the identity that is subject to RBAC and P&F. */
export async function startMeasuredAgent(
  broker: MeasuredBroker,
  plane: MeasuredControlPlane,
  { name, labels }: { readonly name: string; readonly labels: readonly string[] },
): Promise<MeasuredAgent> {
  const { agent: record, initial_pak } = await broker.call<{ agent: { id: string }; initial_pak: string }>(
    'POST',
    '/api/v1/agents',
    { name, cluster_name: 'bench', labels },
  );
  const pakFile = join(plane.dir, `pak-${name}`);
  await writeFile(pakFile, initial_pak, { mode: 0o600 });
  const namespace = `brokkr-${name}`;
  await plane.request('POST', '/api/v1/namespaces', JSON.stringify({ metadata: { name: namespace } }), {
    'content-type': 'application/json',
  });
  const spawn = () =>
    measure('bin/brokkr-agent.js', ['start'], {
      BROKKR__AGENT__BROKER_URL: broker.url,
      BROKKR__AGENT__PAK_FILE: pakFile,
      BROKKR__AGENT__AGENT_NAME: name,
      BROKKR__AGENT__CLUSTER_NAME: 'bench',
      BROKKR__AGENT__KUBECONFIG_PATH: plane.controlPlane.identities.ops.kubeconfigPath,
      BROKKR__AGENT__NAMESPACE: namespace,
      BROKKR__AGENT__DATA_DIR: join(plane.dir, `agent-${name}`),
      BROKKR__AGENT__HEALTH_PORT: '0',
    });
  let process_: Measured;
  const start = async (): Promise<Start> => {
    const startedAtMs = Date.now();
    process_ = spawn();
    await connection(broker, record.id, true);
    const connectedMs = Date.now() - startedAtMs;
    const { time } = await process_.line(({ msg }) => msg === 'session opened');
    return { startedAtMs, openedMs: Date.parse(String(time)) - startedAtMs, connectedMs };
  };
  const stop = async () => {
    await process_[Symbol.asyncDispose]();
    await connection(broker, record.id, false);
  };
  await start();
  return {
    id: record.id,
    get pid() {
      return process_.pid;
    },
    start,
    stop,
    async restart() {
      await stop();
      return start();
    },
    [Symbol.asyncDispose]: () => process_[Symbol.asyncDispose](),
  };
}

/** Resolves when the broker has a session with the agent, or has none. */
async function connection(broker: MeasuredBroker, agentId: string, wanted: boolean): Promise<void> {
  for (let waited = 0; waited < 30_000; waited += 10) {
    const { transport } = await broker.call<{ transport: string | null }>('GET', `/api/v1/agents/${agentId}`);
    if ((transport !== null) === wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`the agent did not ${wanted ? 'connect' : 'disconnect'} within 30 s`);
}
