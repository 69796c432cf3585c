import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';

/** One figure of a bench. */
export interface Result {
  readonly metric: string;
  readonly value: number;
  readonly unit: string;
  /** The same figure of the baseline in the same run. */
  readonly baseline?: number;
  /** value / baseline. */
  readonly ratio?: number;
  /** The budget of the design, in words. */
  readonly budget: string;
  /** Whether the budget is met; undefined when it is written down and not judged. */
  readonly met?: boolean;
}

/** A bench: measures and returns its figures. Prints nothing itself; progress goes through `note`. */
export interface Bench {
  readonly name: string;
  /** What it measures, one line. */
  readonly about: string;
  run(note: (line: string) => void, signal: AbortSignal): Promise<readonly Result[]>;
}

/** What a run leaves behind with `--json`. */
export interface Report {
  readonly name: string;
  readonly commit: string;
  readonly machine: string;
  readonly results: readonly Result[];
}

/** The report of a run on this machine. */
export function report(name: string, results: readonly Result[]): Report {
  let commit = 'unknown';
  try {
    commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  } catch {
    // not a checkout
  }
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}`;
  return { name, commit, machine, results };
}

/** The table a person reads. */
export function table({ name, commit, machine, results }: Report): string {
  const rows = [['metric', 'value', 'baseline', 'ratio', 'budget', 'met']];
  for (const { metric, value, unit, baseline, ratio, budget, met } of results) {
    rows.push([
      metric,
      `${round(value)} ${unit}`,
      baseline === undefined ? '' : `${round(baseline)} ${unit}`,
      ratio === undefined ? '' : round(ratio),
      budget,
      met === undefined ? '–' : met ? 'yes' : 'NO',
    ]);
  }
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return [`${name} at ${commit} on ${machine}`, ...lines].join('\n');
}

/** The value below which `fraction` of the samples lie (nearest rank). */
export function percentile(samples: readonly number[], fraction: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(fraction * sorted.length) - 1))] ?? Number.NaN;
}

/** The middle of the samples. */
export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

function round(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}
