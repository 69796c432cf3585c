import { randomUUID } from 'node:crypto';
import { availableParallelism, homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { errorText } from '#lib/errors.ts';
import { createLog, type Logger } from '#lib/log.ts';
import { runTasks, stopSignal } from '#lib/run.ts';
import { openTelemetry } from '#lib/telemetry.ts';
import manifest from '../package.json' with { type: 'json' };
import { createAgent } from './agent.ts';
import { AGENT_SETTINGS, type AgentConfig, checkAgentConfig } from './config.ts';
import { openDataDir } from './data-dir.ts';

const USAGE = `usage: brokkr-agent start | check

start: keeps the stacks of one cluster as the broker wants them. Settings: docs/reference/agent-settings.md.
check: looks whether something can be reached from here; brokkr-agent check --help.
`;
/** Threads for YAML work: the rest of the machine belongs to others. */
const MAX_THREADS = 4;

await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  if (args[0] === '--version') {
    process.stdout.write(`${manifest.version}\n`);
    return;
  }
  if (args.length > 0 && args[0] !== 'start' && args[0] !== 'check') {
    process.stderr.write(USAGE);
    process.exitCode = 2;
    return;
  }
  let log = createLog('agent', { level: 'info' });
  try {
    if (args[0] === 'check') {
      const { runAgentCheck } = await import('./check.ts');
      process.exitCode = await runAgentCheck(args.slice(1), process.env, Math.random, stopSignal());
      return;
    }
    const config = loadConfig(AGENT_SETTINGS, { env: process.env });
    log = createLog('agent', config.log);
    const warning = checkAgentConfig(config);
    if (warning) log.warn({ broker_url: config.agent.brokerUrl }, warning);
    await start(config, log, stopSignal());
  } catch (error) {
    if (error instanceof ConfigError) process.stderr.write(`${error.message}\n`);
    else log.fatal({ error: errorText(error) }, 'agent stopped');
    process.exitCode = 1;
  }
}

async function start(config: AgentConfig, log: Logger, signal: AbortSignal): Promise<void> {
  const { version } = manifest;
  await using telemetry = await openTelemetry(config.telemetry, { log, clock: systemClock, version, instanceId: randomUUID() });
  const name = `agent-${config.agent.agentName.replace(/[^A-Za-z0-9._-]/g, '_')}`;
  const state = process.env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state');
  const candidates = [join(state, 'brokkr', name), join(tmpdir(), `brokkr-${name}`)];
  await using dataDir = await openDataDir(config.agent.dataDir ? [config.agent.dataDir] : candidates);
  log.info({ version, data_dir: dataDir.path, broker_url: config.agent.brokerUrl }, 'agent starts');
  const agent = createAgent(config, {
    env: process.env,
    log,
    clock: systemClock,
    random: Math.random,
    newId: randomUUID,
    threads: Math.min(MAX_THREADS, Math.max(1, availableParallelism() - 1)),
    version,
    dataDir: dataDir.path,
    telemetry,
  });
  await runTasks(agent.tasks, signal);
  log.info('agent has stopped');
}
