import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Evaluator } from '#flows/evaluate/evaluator.ts';
import { compareWithTruth, parseTruth, type TruthReport } from '#flows/evaluate/truth.ts';
import { docDrift } from '#flows/lint/doc-drift.ts';
import { lintModel, type ModelFinding, productionExposures } from '#flows/lint/model-lints.ts';
import type { Model } from '#flows/model/model.ts';
import { errorText } from '#lib/errors.ts';
import type { Cli } from '../cli.ts';
import { CliError, EXIT, type ExitCode } from '../failure.ts';
import { type ModelOptions, modelOf, readModelSource, told } from './model-source.ts';
import { isFlowSet, readPolicySet } from './policy-set.ts';

/** Options of `brokkr flows lint`. */
export interface LintOptions extends ModelOptions {
  readonly output: 'table' | 'json';
  readonly accepted?: string;
}

/** `brokkr flows lint`: what is suspicious in a flow set, or in the policies of manifests. 1 with an error, 3 with warnings alone, 0 when all that is left is accepted. */
export async function lint(cli: Cli, options: LintOptions): Promise<ExitCode> {
  if (!(await isFlowSet(options.filename))) return (await import('./lint-policies.ts')).lintManifests(cli, options);
  const source = await readModelSource(options);
  const model = await told(async () => modelOf(cli, source, options));
  const found = lintModel(model);
  const drift = productionExposures(model).length > 0 ? [] : await driftOf(cli, model, options);
  const findings = [...found, ...drift];
  if (options.output === 'json') cli.terminal.line(JSON.stringify({ findings }, undefined, 2));
  else for (const finding of findings) cli.terminal.line(findingLine(cli, finding));
  const open = findings.filter(({ accepted }) => accepted === undefined);
  if (open.some(({ severity }) => severity === 'error')) return EXIT.error;
  return open.length > 0 ? EXIT.differences : EXIT.ok;
}

/** What the truth table beside a flow set says otherwise; `truth.PROFILE.csv` is that of a profile, `truth.csv` of a set without. */
async function driftOf(cli: Cli, model: Model, options: LintOptions): Promise<ModelFinding[]> {
  const file = join(options.filename, ['truth', ...model.profiles, 'csv'].join('.'));
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return [];
  const { filename, ...selection } = options;
  const { evaluator } = await readPolicySet(cli, filename, { ...selection, cni: model.facts.cni }, process.stdin);
  return docDrift(model, compareTable(evaluator, text, file), file);
}

function compareTable(evaluator: Evaluator, text: string, file: string): TruthReport {
  try {
    return compareWithTruth(evaluator, parseTruth(text));
  } catch (error) {
    throw new CliError('invalid_truth', `${file}: ${errorText(error)}`, { cause: error });
  }
}

function findingLine({ terminal }: Cli, { place, lint: id, subject, severity, message, accepted }: ModelFinding): string {
  const text = `${place}: ${id} ${subject}: ${message}`;
  if (accepted !== undefined) return terminal.paint('dim', `${text} (accepted: ${accepted})`);
  return terminal.paint(severity === 'error' ? 'red' : 'yellow', text);
}
