import type { TruthReport } from '#flows/evaluate/truth.ts';
import type { Model } from '#flows/model/model.ts';
import type { ModelFinding } from './model-lints.ts';

/** Rows of a documented truth table that the policies of the model do not bear out. `file` is that of the table. */
export function docDrift({ accepted }: Model, { differences }: TruthReport, file: string): ModelFinding[] {
  const reason = accepted.find(({ lint }) => lint === 'DOC-DRIFT')?.reason;
  return differences.map(({ line, source, destination, protocol, ports, expected, verdict }) => ({
    lint: 'DOC-DRIFT',
    severity: 'error',
    subject: `${source} to ${destination}`,
    place: `${file}:${line}:1`,
    message: `${protocol} ${ports} is ${expected} in the table, and ${verdict} by the policies`,
    accepted: reason,
  }));
}
