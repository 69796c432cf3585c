import { parseArgs } from 'node:util';
import { type CheckDeps, type CheckReport, reportText } from './check.ts';
import { checkDns } from './check-dns.ts';
import { type CheckedPort, checkHttp, checkTcp } from './check-network.ts';
import type { Clock } from './clock.ts';
import { errorText } from './errors.ts';

const DEFAULT_TIMEOUT_S = 5;
const MAX_TIMEOUT_S = 300;

/** One kind of check. */
export interface CheckCommand {
  /** Names of its operands, for the help; all are needed. */
  readonly operands: readonly string[];
  /** What it tells. */
  readonly meaning: string;
  /** `operands` are as many as named. Throws a `UsageError` when one cannot be used. */
  run(operands: readonly string[], flags: CheckFlags, deps: CheckDeps, signal: AbortSignal): Promise<CheckReport>;
}

/** Flags that some checks know. */
export interface CheckFlags {
  readonly caFile: string | undefined;
  readonly server: string | undefined;
}

/** The command line cannot be understood. */
class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The checks that need nothing but the network. */
export const NETWORK_CHECKS: Readonly<Record<string, CheckCommand>> = {
  tcp: {
    operands: ['HOST', 'PORT'],
    meaning: 'whether a TCP connection can be made',
    run: ([host = '', port = ''], _, deps, signal) => checkTcp({ host, port: readPort(port) }, deps, signal),
  },
  dns: {
    operands: ['NAME'],
    meaning: 'whether a name resolves, and each DNS server answers over UDP and TCP (--server ADDRESS[:PORT]: only that one)',
    run: ([name = ''], { server }, deps, signal) =>
      checkDns(name, { server: server === undefined ? undefined : readServer(server) }, deps, signal),
  },
  http: {
    operands: ['URL'],
    meaning: 'whether a URL answers with a status below 400 (--ca-file FILE: trust these certificates, too)',
    run: ([url = ''], flags, deps, signal) => checkHttp(readUrl(url), flags, deps, signal),
  },
};

/** What the command needs from its process. */
export interface CheckCommandDeps {
  /** Name of the program, for the help. */
  readonly program: string;
  readonly checks: Readonly<Record<string, CheckCommand>>;
  readonly clock: Clock;
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
}

/** Runs `PROGRAM check …` and returns the exit code: 0 for `ok`, 1 for every other result, 2 when the command line is wrong. */
export async function runCheckCommand(args: readonly string[], deps: CheckCommandDeps, signal: AbortSignal): Promise<number> {
  const { program, checks, clock, print, complain } = deps;
  try {
    const { values, positionals } = parse(args);
    if (values.help) {
      print(checkUsage(program, checks));
      return 0;
    }
    const [name = '', ...operands] = positionals;
    const check = checks[name];
    if (!check) throw new UsageError(name === '' ? 'which check?' : `there is no check ${JSON.stringify(name)}`);
    if (operands.length !== check.operands.length)
      throw new UsageError(`check ${[name, ...check.operands].join(' ')} is the form`);
    const json = readFormat(values.output);
    const flags = { caFile: values['ca-file'], server: values.server };
    const report = await check.run(operands, flags, { clock, timeoutMs: readTimeoutMs(values.timeout) }, signal);
    print(json ? `${JSON.stringify(report, null, 2)}\n` : reportText(report));
    return report.result === 'ok' ? 0 : 1;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(`${error.message}\n\n${checkUsage(program, checks)}`);
    return 2;
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        output: { type: 'string', short: 'o', default: 'text' },
        timeout: { type: 'string', default: String(DEFAULT_TIMEOUT_S) },
        'ca-file': { type: 'string' },
        server: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new UsageError(errorText(error));
  }
}

function checkUsage(program: string, checks: Readonly<Record<string, CheckCommand>>): string {
  const forms = Object.entries(checks).map(([name, { operands, meaning }]) => [[name, ...operands].join(' '), meaning] as const);
  const width = Math.max(...forms.map(([form]) => form.length));
  return `usage: ${program} check CHECK [-o text|json] [--timeout SECONDS]

${forms.map(([form, meaning]) => `  ${form.padEnd(width)}  ${meaning}`).join('\n')}

Prints what was tried, the result and the next step. --timeout bounds one step (default ${DEFAULT_TIMEOUT_S}). Exit code 0: ok, 1: not, 2: wrong usage.
`;
}

function readFormat(text: string): boolean {
  if (text !== 'text' && text !== 'json') throw new UsageError(`-o ${text}: text or json is possible`);
  return text === 'json';
}

function readTimeoutMs(text: string): number {
  const seconds = Number(text);
  if (text === '' || !(seconds > 0 && seconds <= MAX_TIMEOUT_S))
    throw new UsageError(`--timeout ${text}: more than 0 and at most ${MAX_TIMEOUT_S} seconds are possible`);
  return seconds * 1000;
}

function readPort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) throw new UsageError(`${text} is no port from 1 to 65535`);
  return port;
}

function readUrl(text: string): URL {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) throw new UsageError(`${text} is no http or https URL`);
  return new URL(text);
}

function readServer(text: string): CheckedPort {
  const [, bracketed, plain, port] = /^(?:\[(.+)\]|([^:]+))(?::(\d+))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined) throw new UsageError(`--server ${text}: ADDRESS or ADDRESS:PORT is possible, IPv6 in brackets`);
  return { host, port: readPort(port ?? '53') };
}
