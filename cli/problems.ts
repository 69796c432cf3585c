import { CliError } from './failure.ts';
import { type Manifests, placeText } from './manifests.ts';

/** A mistake in a text, as `ContentProblem` in the answers and in `details.problems` of errors. */
export interface ReportedProblem {
  readonly document?: number | undefined;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
  readonly path?: string | undefined;
  readonly object?: string | undefined;
  readonly rule?: string | undefined;
  readonly message?: string | undefined;
}

/** `file:line:column: message (rule), in OBJECT at PATH`. */
export function problemLine(manifests: Manifests, problem: ReportedProblem): string {
  const place = placeText(manifests, problem) || (problem.document ? `document ${problem.document}` : '');
  const about = [problem.object && `in ${problem.object}`, problem.path && `at ${problem.path}`].filter(Boolean).join(' ');
  const rule = problem.rule ? ` (${problem.rule})` : '';
  return `${place === '' ? '' : `${place}: `}${problem.message ?? 'not valid'}${rule}${about === '' ? '' : `, ${about}`}`;
}

/** Writes the places of an error's `details.problems`, found in our files, into its message. */
export function withPlaces(error: unknown, manifests: Manifests): unknown {
  if (!(error instanceof CliError) || !Array.isArray(error.details.problems)) return error;
  const lines = (error.details.problems as readonly ReportedProblem[]).map((problem) => `  ${problemLine(manifests, problem)}`);
  if (lines.length === 0) return error;
  const { code, hint, exitCode, details } = error;
  const message = `the content has ${lines.length} problem${lines.length === 1 ? '' : 's'}\n${lines.join('\n')}`;
  return new CliError(code, message, { hint, exitCode, details, cause: error });
}
