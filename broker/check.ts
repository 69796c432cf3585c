import { type CheckCommand, NETWORK_CHECKS, runCheckCommand } from '#lib/check-command.ts';
import { systemClock } from '#lib/clock.ts';
import { loadBrokerConfig } from './config.ts';
import { checkDatabase } from './postgres/check.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** `brokkr-broker check`: prints a report and returns the exit code. Throws a `ConfigError` when the settings of the broker are wrong. */
export async function runBrokerCheck(args: readonly string[], env: Env, signal: AbortSignal): Promise<number> {
  const database: CheckCommand = {
    operands: [],
    meaning: 'whether this broker could start on its database (DATABASE_URL); changes nothing there',
    run: (_, __, deps, inner) => checkDatabase(loadBrokerConfig(env).database, env, deps, inner),
  };
  const print = (text: string) => void process.stdout.write(text);
  const complain = (text: string) => void process.stderr.write(text);
  const checks = { ...NETWORK_CHECKS, database };
  return await runCheckCommand(args, { program: 'brokkr-broker', checks, clock: systemClock, print, complain }, signal);
}
