import { freePort } from '#kube/ports.ts';
import { abortable, aborted } from '#lib/signal.ts';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import type { Cli } from './cli.ts';
import { type Client, createClient } from './client.ts';
import { contextPath, saveContext } from './contexts.ts';
import { CliError, EXIT, type ExitCode } from './failure.ts';
import { spanText } from './terminal.ts';
import { LOCAL, lastHeardMs, prepareAgent, untilOnline } from './up/agent.ts';
import { type Child, type ChildOptions, startChild } from './up/child.ts';
import { type Cluster, openCluster } from './up/cluster.ts';
import { EXAMPLE, exampleFolder, publishExample } from './up/example.ts';
import { occupy } from './up/occupy.ts';
import { adminKey, openPlace, type Place } from './up/place.ts';

/** Options of `brokkr up`. */
export interface UpOptions {
  readonly once?: boolean;
  readonly kubeconfig?: string;
  readonly port: number;
  readonly dataDir?: string;
  readonly timeout: number;
}

/** The first start makes a database: a slow disk takes its time. */
const BROKER_READY_MS = 120_000;
const AGENT_ONLINE_MS = 60_000;
const ASK_AGAIN_MS = 50;
/** Together below the grace period of the process (30 s, lib/run.ts). */
const AGENT_GRACE_MS = 8_000;
const BROKER_GRACE_MS = 15_000;

/**
 * `brokkr up`: broker, cluster and agent as processes of their own, the example published through the API. Serves until
 * Ctrl-C; with `--once` it ends with the outcome of the example. Everything it started is stopped, agent first.
 */
export async function up(cli: Cli, options: UpOptions): Promise<ExitCode> {
  const failure = new AbortController(); // one of ours ended unasked
  const closing = new AbortController();
  const signal = AbortSignal.any([cli.signal, failure.signal, closing.signal]);
  const place = await openPlace(options.dataDir, cli.env);
  await using occupied = await occupy(place, cli.terminal.note, cli.clock, signal);
  const port = await checkedPort(options.port);
  await using running = new AsyncDisposableStack(); // what is added last ends first
  const start = async (child: ChildOptions, graceMs: number) => {
    const started = startChild(child, cli.clock);
    running.defer(() => started.stop(graceMs));
    started.exited.then(
      (end) => failure.abort(endedUnasked(started, end)),
      () => undefined,
    );
    await occupied.add(started.pid);
  };
  const cluster = openCluster(clusterOptions(cli, options, place), signal);
  cluster.catch((error: unknown) => failure.abort(error));
  running.defer(async () => (await cluster.catch(() => undefined))?.[Symbol.asyncDispose]());
  running.defer(() => closing.abort(new Error('brokkr up is ending')));
  let serving = false;
  try {
    const client = await startBroker(cli, place, port, start, signal);
    const agentId = await prepareAgent(client, place, cli.clock, signal);
    await startAgent(cli, { client, place, cluster: await abortable(cluster, signal), start, agentId }, signal);
    const outcome = await publishExample(cli, client, options.timeout, signal);
    if (options.once) return outcome;
    await printHints(cli, client.url, await cluster);
    serving = true;
    await aborted(signal);
    failure.signal.throwIfAborted();
    return EXIT.ok;
  } catch (error) {
    if (failure.signal.aborted) throw failure.signal.reason; // what the abort broke is not the reason
    throw error;
  } finally {
    closing.abort(new Error('brokkr up is ending'));
    if (serving || cli.signal.aborted) cli.terminal.note('stopping');
  }
}

type Start = (child: ChildOptions, graceMs: number) => Promise<void>;

function clusterOptions({ env, terminal }: Cli, { kubeconfig, once }: UpOptions, place: Place) {
  const progress = (line: string) => terminal.note(`cluster: ${line}`);
  return { kubeconfig, env, dir: place.path('kube'), progress, wantKubectl: once !== true };
}

/** The port, or a free one for 0. Throws when somebody listens there. */
async function checkedPort(port: number): Promise<number> {
  const free = await freePort(port === 0 ? undefined : port);
  if (port === 0 || free === port) return free;
  const hint = `another brokkr up? choose another port with --port, for example --port ${port + 1}`;
  throw new CliError('port_taken', `something listens on 127.0.0.1:${port} already`, { hint });
}

function endedUnasked(child: Child, end: string): CliError {
  return new CliError('process_ended', `the ${child.name} ended: ${end}\n${child.tail()}`, {
    hint: `its whole log is ${child.logPath}`,
  });
}

/** Ours, with what only this process says, and without a proxy on the way to ourselves. */
function childEnv(env: Cli['env'], own: Cli['env']): Cli['env'] {
  const noProxy = [env.NO_PROXY ?? env.no_proxy, '127.0.0.1', 'localhost'].filter(Boolean).join(',');
  const others = { BROKKR_BROKER_URL: undefined, BROKKR_PAK: undefined }; // of the CLI, for some other broker
  return { ...env, ...others, NO_PROXY: noProxy, no_proxy: noProxy, ...own };
}

async function startBroker(cli: Cli, place: Place, port: number, start: Start, signal: AbortSignal): Promise<Client> {
  const { pak, hash } = await adminKey(place);
  const url = `http://127.0.0.1:${port}`;
  const began = cli.clock.monotonic();
  const env = childEnv(cli.env, {
    BROKKR__BROKER__LISTEN: `127.0.0.1:${port}`,
    BROKKR__BROKER__DATA_DIR: place.path('broker'),
    BROKKR__BROKER__PAK_HASH: hash,
  });
  cli.terminal.note(`broker: starting, log in ${place.path('logs', 'broker.log')}`);
  await start(
    { name: 'broker', script: 'brokkr-broker.js', args: ['serve'], env, logPath: place.path('logs', 'broker.log') },
    BROKER_GRACE_MS,
  );
  using deadline = cli.clock.deadline(BROKER_READY_MS, signal);
  while (!(await answers(`${url}/readyz`, deadline.signal))) await cli.clock.sleep(ASK_AGAIN_MS, deadline.signal);
  cli.terminal.note(`broker: ready on ${url} after ${spanText(cli.clock.monotonic() - began)}`);
  const client = await createClient({ broker_url: url, pak }, { clock: cli.clock });
  await checkKey(client, place, signal);
  await saveContext(cli.env, LOCAL, { broker_url: url, pak });
  cli.terminal.note(`context: ${LOCAL} in ${contextPath(cli.env)}`);
  return client;
}

/** The key counts at a database's first start only: another database, or a rotation, and it is worth nothing. */
async function checkKey(client: Client, place: Place, signal: AbortSignal): Promise<void> {
  try {
    await client.call(KeyService.method.checkPak, {}, signal);
  } catch (error) {
    if (!(error instanceof CliError && error.code === 'unauthorized')) throw error;
    const hint = `put an admin key of this broker into ${place.path('admin.key')}, or choose another folder with --data-dir`;
    throw new CliError('unauthorized', "the broker's database knows other admin keys", { hint, cause: error });
  }
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  signal.throwIfAborted();
  const response = await fetch(url, { signal }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok === true;
}

interface AgentDeps {
  readonly client: Client;
  readonly place: Place;
  readonly cluster: Cluster;
  readonly start: Start;
  readonly agentId: string;
}

async function startAgent(cli: Cli, { client, place, cluster, start, agentId }: AgentDeps, signal: AbortSignal): Promise<void> {
  const logPath = place.path('logs', 'agent.log');
  const env = childEnv(cli.env, {
    BROKKR__AGENT__BROKER_URL: client.url,
    BROKKR__AGENT__PAK: undefined,
    BROKKR__AGENT__PAK_FILE: place.path('agent.key'),
    BROKKR__AGENT__AGENT_NAME: LOCAL,
    BROKKR__AGENT__CLUSTER_NAME: LOCAL,
    BROKKR__AGENT__DATA_DIR: place.path('agent'),
    BROKKR__AGENT__PLAIN_HTTP: 'allow', // loopback
    BROKKR__AGENT__HEALTH_HOST: '127.0.0.1',
    BROKKR__AGENT__HEALTH_PORT: String(await freePort(8080)),
    ...cluster.agentEnv,
  });
  const heardBeforeMs = await lastHeardMs(client, agentId, signal);
  const began = cli.clock.monotonic();
  await start({ name: 'agent', script: 'brokkr-agent.js', args: ['start'], env, logPath }, AGENT_GRACE_MS);
  const online = await untilOnline(client, { agentId, heardBeforeMs, limitMs: AGENT_ONLINE_MS }, cli.clock, signal);
  const after = spanText(cli.clock.monotonic() - began);
  cli.terminal.note(
    online ? `agent: online after ${after}, log in ${logPath}` : `agent: not online after ${after}, see ${logPath}`,
  );
}

async function printHints({ terminal }: Cli, url: string, cluster: Cluster): Promise<void> {
  terminal.line(`serving ${url} until Ctrl-C; in a second terminal:`);
  terminal.line('  npx brokkr get stacks');
  terminal.line(`  npx brokkr status ${EXAMPLE} --watch`);
  terminal.line(`  npx brokkr apply -f ${exampleFolder()} --stack ${EXAMPLE} --wait`);
  terminal.line(`  ${await cluster.kubectl()} get all -n ${EXAMPLE}`);
}
