import { readFile } from 'node:fs/promises';
import { ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { type AcceptedLint, lintPolicies, POLICY_LINTS } from '#flows/lint/policy-lints.ts';
import { loadFacts, resolveFacts } from '#flows/model/facts.ts';
import type { Facts } from '#flows/model/model.ts';
import { errorText } from '#lib/errors.ts';
import { isMapping, type Value } from '#lib/object.ts';
import { parseStream } from '#lib/yaml.ts';
import type { Cli } from '../cli.ts';
import { CliError, EXIT, type ExitCode } from '../failure.ts';
import { readClusterView } from './cluster-view.ts';
import type { LintOptions } from './lint.ts';
import { told } from './model-source.ts';

/** `brokkr flows lint` of manifests: what is suspicious in their policies. 3 when something is that nobody has accepted. */
export async function lintManifests(cli: Cli, { filename, facts: factsFile, accepted, output }: LintOptions): Promise<ExitCode> {
  const facts = await readFacts(factsFile);
  const paths = { filename: [filename], cni: facts.cni, ipBlockMode: ipBlockModeOf(facts.cni) };
  const view = await readClusterView(paths, process.stdin);
  const found = lintPolicies(view.evaluator, facts, accepted === undefined ? [] : await readAccepted(accepted));
  const findings = found.map((finding) => ({ ...finding, place: view.placeText(finding.place) }));
  if (output === 'json') cli.terminal.line(JSON.stringify({ findings }, undefined, 2));
  else {
    for (const { place, lint, subject, message, accepted: reason } of findings) {
      const text = `${place}: ${lint} ${subject}: ${message}`;
      cli.terminal.line(
        reason === undefined ? cli.terminal.paint('yellow', text) : cli.terminal.paint('dim', `${text} (accepted: ${reason})`),
      );
    }
  }
  return findings.every(({ accepted: reason }) => reason !== undefined) ? EXIT.ok : EXIT.differences;
}

async function readFacts(file: string | undefined): Promise<Facts> {
  if (file === undefined) return resolveFacts();
  const text = await readText(file);
  return resolveFacts({ facts: await told(async () => loadFacts(text, file)), source: 'declared' });
}

async function readAccepted(file: string): Promise<AcceptedLint[]> {
  const { documents, problems } = parseStream(await readText(file));
  const [problem] = problems;
  if (problem) throw new CliError('invalid_yaml', `${file}:${problem.line ?? 1}:${problem.column ?? 1}: ${problem.message}`);
  const list: Value = documents[0]?.value ?? [];
  if (!Array.isArray(list)) throw new CliError('invalid_accepted', `${file}: must be a list of {lint, subject, reason}`);
  return list.map((item, index) => {
    const { lint, subject = '', reason, ...rest } = isMapping(item) ? item : {};
    const isKnown = POLICY_LINTS.some((each) => each === lint);
    if (isKnown && typeof subject === 'string' && typeof reason === 'string' && reason !== '' && Object.keys(rest).length === 0)
      return { lint: String(lint), subject, reason };
    const message = `item ${index + 1} must have lint (one of ${POLICY_LINTS.join(', ')}), reason, and perhaps subject`;
    throw new CliError('invalid_accepted', `${file}: ${message}`);
  });
}

function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: unknown) => {
    throw new CliError('file_not_found', `${file}: ${errorText(error)}`, { cause: error });
  });
}
