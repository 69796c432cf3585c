import { readFile } from 'node:fs/promises';
import { compareReach } from '#flows/evaluate/compare.ts';
import { compareWithTruth, parseTruth, type TruthReport } from '#flows/evaluate/truth.ts';
import { errorText } from '#lib/errors.ts';
import type { Cli } from '../cli.ts';
import { CliError, EXIT, type ExitCode, usageError } from '../failure.ts';
import type { ClusterView } from './cluster-view.ts';
import { isSame, printDifference } from './diff.ts';
import { type PolicySetOptions, readPolicySet } from './policy-set.ts';

/** Options of `brokkr flows verify`. */
export type VerifyOptions = PolicySetOptions & {
  readonly expect?: string;
  readonly against?: string;
  readonly output: 'table' | 'json';
};

/** `brokkr flows verify`: compares a policy set with a truth table or with another set. 3 when they differ. */
export async function verify(cli: Cli, path: string, options: VerifyOptions, stdin: NodeJS.ReadableStream): Promise<ExitCode> {
  const { expect, against } = options;
  if ((expect === undefined) === (against === undefined)) throw usageError('give --expect or --against, one of them');
  const view = await readPolicySet(cli, path, options, stdin);
  if (expect !== undefined) return verifyTruth(cli, view, expect, options.output);
  const difference = compareReach((await readPolicySet(cli, against ?? '', options, stdin)).evaluator, view.evaluator);
  if (options.output === 'json') cli.terminal.line(JSON.stringify(difference, undefined, 2));
  else printDifference(cli, difference);
  return isSame(difference) ? EXIT.ok : EXIT.differences;
}

async function verifyTruth(cli: Cli, { evaluator }: ClusterView, file: string, output: 'table' | 'json'): Promise<ExitCode> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new CliError('file_not_found', `${file}: ${errorText(error)}`, { cause: error });
  });
  const report = (() => {
    try {
      return compareWithTruth(evaluator, parseTruth(text));
    } catch (error) {
      throw new CliError('invalid_truth', `${file}: ${errorText(error)}`, { cause: error });
    }
  })();
  if (output === 'json') cli.terminal.line(JSON.stringify(report, undefined, 2));
  else printReport(cli, report);
  return report.differing === 0 ? EXIT.ok : EXIT.differences;
}

function printReport({ terminal }: Cli, { cells, differing, cniDependent, differences }: TruthReport): void {
  for (const { source, destination, protocol, ports, expected, verdict, reason } of differences) {
    terminal.line(terminal.paint('red', `${source} → ${destination} ${protocol} ${ports}: expected ${expected}, is ${verdict}`));
    terminal.line(`  ${reason}`);
  }
  terminal.line(`${cells} cells, ${differing} differ, ${cniDependent} depend on the CNI`);
}
