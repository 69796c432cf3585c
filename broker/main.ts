import { randomBytes, randomUUID } from 'node:crypto';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { ConfigError } from '#lib/config.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { createLog, type Logger } from '#lib/log.ts';
import { mintKey } from '#lib/pak.ts';
import { failureCode } from '#lib/reach-failure.ts';
import { runTasks, stopSignal, type Task } from '#lib/run.ts';
import { openTelemetry } from '#lib/telemetry.ts';
import manifest from '../package.json' with { type: 'json' };
import { AgentEntity } from './agents/entities.ts';
import { createBroker } from './broker.ts';
import { type BrokerConfig, loadBrokerConfig } from './config.ts';
import { type Database, openDatabase } from './database.ts';
import { GeneratorEntity } from './generators/entities.ts';
import { hasAdminKey, insertKey } from './keys/store.ts';
import { migrate } from './migrate.ts';
import { dataDirProblem, type EmbeddedPostgres, openEmbeddedPostgres } from './postgres/supervisor.ts';
import { StackEntity } from './stacks/entities.ts';

const USAGE = `usage: brokkr-broker serve | check

serve: serves the API on one port (BROKKR__BROKER__LISTEN, default 0.0.0.0:3000). Settings: docs/reference/broker-settings.md.
check: looks whether something can be reached from here; brokkr-broker check --help.
`;

await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  if (args[0] === '--version') {
    process.stdout.write(`${manifest.version}\n`);
    return;
  }
  if (args.length > 0 && args[0] !== 'serve' && args[0] !== 'check') {
    process.stderr.write(USAGE);
    process.exitCode = 2;
    return;
  }
  let log = createLog('broker', { level: 'info' });
  try {
    if (args[0] === 'check') {
      const { runBrokerCheck } = await import('./check.ts');
      process.exitCode = await runBrokerCheck(args.slice(1), process.env, stopSignal());
      return;
    }
    const config = loadBrokerConfig(process.env);
    log = createLog('broker', config.log);
    await serve(config, log, stopSignal());
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(`${error.message}\n`);
    } else {
      const details = error instanceof BrokkrError ? error.details : undefined;
      log.fatal({ code: details?.reason ?? failureCode(error), error: errorText(error), ...details }, 'broker stopped');
    }
    process.exitCode = 1;
  }
}

async function serve(config: BrokerConfig, log: Logger, signal: AbortSignal): Promise<void> {
  const { version } = manifest;
  await using telemetry = await openTelemetry(config.telemetry, { log, clock: systemClock, version, instanceId: randomUUID() });
  await using postgres = config.database.url === undefined ? await startPostgres(config, log, signal) : undefined;
  const url = config.database.url ?? postgres?.url ?? '';
  await using db = await openDatabase(
    { ...config.database, url },
    {
      log,
      clock: systemClock,
      random: Math.random,
      environment: process.env,
      entities: [AgentEntity, GeneratorEntity, StackEntity],
    },
    signal,
  );
  await migrate(db, { log }, signal);
  await ensureAdminKey(db, config.broker.pakHash, log);
  const broker = createBroker(config, {
    db,
    log,
    clock: systemClock,
    random: Math.random,
    newId: randomUUID,
    version,
    telemetry,
  });
  await using _yaml = broker.yaml;
  broker.server.ready.then((address) => log.info({ address, version }, 'broker serves')).catch(() => undefined);
  await runTasks([...broker.tasks, ...(postgres ? [watchPostgres(postgres)] : [])], signal);
}

async function startPostgres(config: BrokerConfig, log: Logger, signal: AbortSignal): Promise<EmbeddedPostgres> {
  const dataDir = config.broker.dataDir ?? (await defaultDataDir());
  log.info({ data_dir: dataDir }, 'no DATABASE_URL: starting a PostgreSQL of our own');
  return await openEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), log, clock: systemClock }, signal);
}

/** As root the server runs under another account, which cannot enter root's home. */
async function defaultDataDir(): Promise<string> {
  const own = join(process.env.XDG_DATA_HOME ?? join(homedir(), '.local', 'share'), 'brokkr');
  return (await dataDirProblem(join(own, 'postgres'))) === undefined ? own : '/var/lib/brokkr';
}

function watchPostgres(postgres: EmbeddedPostgres): Task {
  return {
    name: 'postgres',
    async run(signal) {
      const stopped = new Promise<undefined>((resolve) =>
        signal.addEventListener('abort', () => resolve(undefined), { once: true }),
      );
      const problem = await Promise.race([postgres.exit, stopped]);
      if (problem !== undefined && !signal.aborted) throw new Error(problem);
    },
  };
}

/** On first start: takes the configured hash, or mints a key and prints it once, on the terminal and never in the log. */
async function ensureAdminKey(db: Database, configured: string | undefined, log: Logger): Promise<void> {
  if (await hasAdminKey(db)) return;
  if (configured !== undefined) {
    await insertKey(db, { role: 'admin', name: 'configured', hash: configured, shortToken: 'configured' });
    log.info('admin key taken from the configuration');
    return;
  }
  const minted = mintKey();
  await insertKey(db, { role: 'admin', name: `first-start-${randomBytes(3).toString('hex')}`, ...minted });
  process.stderr.write(`\nThe admin key of this broker, shown only now:\n\n    ${minted.pak}\n\n`);
}
