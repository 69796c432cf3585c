import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CheckDeps, type CheckReport, runCheck, type Step } from '#lib/check.ts';
import { type CheckCommand, NETWORK_CHECKS, runCheckCommand } from '#lib/check-command.ts';
import { openConnection, portOf, secure } from '#lib/check-network.ts';
import { systemClock } from '#lib/clock.ts';
import { loadConfig } from '#lib/config.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { ReachError } from '#lib/reach-failure.ts';
import { AGENT_SETTINGS, type AgentConfig, checkAgentConfig } from './config.ts';
import { KubeError } from './kube/errors.ts';
import { openKube } from './kube/kube.ts';
import { loadCredentials } from './kube/kubeconfig.ts';
import { checkBroker } from './transport/check.ts';
import { readEndpoint } from './transport/endpoint.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** `brokkr-agent check`: prints a report and returns the exit code. Throws a `ConfigError` when the settings of the agent are wrong. */
export async function runAgentCheck(
  args: readonly string[],
  env: Env,
  random: () => number,
  signal: AbortSignal,
): Promise<number> {
  const read = () => {
    const config = loadConfig(AGENT_SETTINGS, { env });
    checkAgentConfig(config);
    return config.agent;
  };
  const broker: CheckCommand = {
    operands: [],
    meaning: 'whether the broker answers and knows the key, on the way the agent takes (settings and proxies of the agent)',
    run: (_, __, deps, inner) => checkBrokerWay(read(), env, deps, inner),
  };
  const kubernetes: CheckCommand = {
    operands: [],
    meaning: 'whether the API server answers and knows the account, on the way the agent takes',
    run: (_, __, deps, inner) =>
      checkKubernetes(loadConfig(AGENT_SETTINGS, { env }).agent.kubeconfigPath, { env, random }, deps, inner),
  };
  const print = (text: string) => void process.stdout.write(text);
  const complain = (text: string) => void process.stderr.write(text);
  const checks = { ...NETWORK_CHECKS, broker, kubernetes };
  return await runCheckCommand(args, { program: 'brokkr-agent', checks, clock: systemClock, print, complain }, signal);
}

async function checkBrokerWay(agent: AgentConfig['agent'], env: Env, deps: CheckDeps, signal: AbortSignal): Promise<CheckReport> {
  const work = async (step: Step) => {
    const endpoint = await step(
      'read key and certificates',
      () => readEndpoint(agent, env).catch(rejectAsConfiguration),
      ({ proxy }) => (proxy === undefined ? '' : `the way leads through the proxy ${withoutUser(proxy)}`),
    );
    const { url, ca, proxy } = endpoint;
    await reach(proxy === undefined ? url : new URL(proxy), proxy === undefined ? ca : undefined, step);
    const ask = (inner: AbortSignal) => checkBroker(endpoint, inner).catch(rejectWithClass);
    await step('ask the broker whose the key is', ask, () => 'the key of an agent');
  };
  return await runCheck({ check: 'broker', target: agent.brokerUrl }, work, deps, signal);
}

async function checkKubernetes(
  path: string | undefined,
  { env, random }: { readonly env: Env; readonly random: () => number },
  deps: CheckDeps,
  signal: AbortSignal,
): Promise<CheckReport> {
  const work = async (step: Step) => {
    const credentials = await step(
      'find the cluster',
      (inner) => loadCredentials({ path }, env, inner).catch(rejectAsConfiguration),
      ({ server }) => server,
    );
    await reach(new URL(credentials.proxyUrl ?? credentials.server), undefined, step);
    const log = createLog('check', { level: 'fatal' });
    await using kube = openKube(
      { clock: deps.clock, log, random, env },
      { credentials, openapiDir: join(tmpdir(), 'brokkr-check') }, // nothing asked here fills it
    );
    await step(
      'ask its version',
      (inner) => kube.version(inner).catch(rejectWithClass),
      (version) => version,
    );
  };
  return await runCheck({ check: 'kubernetes', target: path ?? 'as the agent finds it' }, work, deps, signal);
}

/** The connection alone, and TLS where `ca` is given: what fails here is told with more than the request itself could. */
async function reach(url: URL, ca: readonly string[] | undefined, step: Step): Promise<void> {
  const target = portOf(url);
  const { socket } = await openConnection(target, step);
  try {
    if (ca) (await secure(socket, target.host, ca, step)).destroy();
  } finally {
    socket.destroy();
  }
}

function rejectAsConfiguration(error: unknown): never {
  throw new ReachError('configuration', errorText(error), { cause: error });
}

function rejectWithClass(error: unknown): never {
  if (error instanceof KubeError) {
    if (error.status === 401) throw new ReachError('authentication', error.message, { cause: error });
    throw new ReachError(error.status === 403 ? 'forbidden' : 'status', error.message, { cause: error });
  }
  if (!(error instanceof BrokkrError)) throw error; // of the socket
  if (error.code === 'unauthorized') {
    const next = 'compare the key with the one that was minted for this agent (brokkr create agent, brokkr rotate agent)';
    throw new ReachError('authentication', error.message, { next, cause: error });
  }
  throw new ReachError('status', error.message, { cause: error });
}

function withoutUser(proxy: string): string {
  return new URL(proxy).host;
}
