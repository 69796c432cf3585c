import { decisionRecord } from '#flows/emit/decision-record.ts';
import { compareReach, type ReachDifference } from '#flows/evaluate/compare.ts';
import type { Cli } from '../cli.ts';
import { EXIT, type ExitCode } from '../failure.ts';
import { type PolicySetOptions, readPolicySet } from './policy-set.ts';

/** Options of `brokkr flows diff`. */
export type FlowsDiffOptions = PolicySetOptions & {
  readonly output: 'table' | 'json';
  /** Title of a decision record, which is printed instead. */
  readonly adr?: string;
};

/** `brokkr flows diff`: what becomes reachable, and what no longer is, from one policy set to the other. 3 when anything. */
export async function diffFlows(
  cli: Cli,
  { before, after }: { readonly before: string; readonly after: string },
  options: FlowsDiffOptions,
  stdin: NodeJS.ReadableStream,
): Promise<ExitCode> {
  const was = await readPolicySet(cli, before, options, stdin);
  const is = await readPolicySet(cli, after, options, stdin);
  const difference = compareReach(was.evaluator, is.evaluator);
  if (options.adr !== undefined) cli.terminal.line(recordOf(cli, options.adr, difference).trimEnd());
  else if (options.output === 'json') cli.terminal.line(JSON.stringify(difference, undefined, 2));
  else printDifference(cli, difference);
  return isSame(difference) ? EXIT.ok : EXIT.differences;
}

function recordOf({ clock }: Cli, title: string, difference: ReachDifference): string {
  return decisionRecord({ title, date: new Date(clock.now()).toISOString().slice(0, 10), difference });
}

/** Whether two policy sets allow the same. */
export function isSame({ changes, onlyBefore, onlyAfter }: ReachDifference): boolean {
  return changes.length + onlyBefore.length + onlyAfter.length === 0;
}

/** A line for each group of cells: `+` for what is gained, `-` for what is lost. */
export function printDifference({ terminal }: Cli, { changes, onlyBefore, onlyAfter }: ReachDifference): void {
  for (const { change, src, dst, protocol, ports, undecidable } of changes) {
    const sign = change === 'gained' ? '+' : '-';
    const line = `${sign} ${src} → ${dst} ${protocol} ${ports}${undecidable ? ' (undecidable)' : ''}`;
    terminal.line(terminal.paint(change === 'gained' ? 'green' : 'red', line));
  }
  for (const label of onlyBefore) terminal.line(`- ${label} is only in the first set`);
  for (const label of onlyAfter) terminal.line(`+ ${label} is only in the second set`);
}
