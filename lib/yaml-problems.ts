/** One thing wrong with a text. Messages name the place and the limit, and never quote a value (it may be a Secret's). */
export interface Problem {
  /** 1-based number of the document, not counting empty ones; 0 for the text as a whole. */
  readonly document: number;
  /** 1-based line in the whole text. */
  readonly line?: number;
  /** 1-based column, in UTF-16 units. */
  readonly column?: number;
  /** JSON pointer into the object. */
  readonly path?: string;
  /** The object, as in `apps/v1 Deployment shop/web`. */
  readonly object?: string;
  /** Stable lower-case id, such as `yaml_syntax`, `duplicate_key`, `too_many_documents`. */
  readonly rule: string;
  /** Lower case, no full stop. */
  readonly message: string;
  readonly severity: 'error' | 'warning';
}

/** Problems reported in one answer; the rest is summed up in one more problem, `too_many_problems`. */
const MAX_PROBLEMS = 100;

/** Whether any of the problems is an error, so that nothing of the text may be used. */
export function hasErrors(problems: readonly Problem[]): boolean {
  return problems.some((problem) => problem.severity === 'error');
}

/** Collects problems with a bound. Errors take precedence: warnings never push one out. */
export class ProblemList {
  readonly #errors: Problem[] = [];
  readonly #warnings: Problem[] = [];
  #errorCount = 0;
  #warningCount = 0;

  add(problem: Problem): void {
    if (problem.severity === 'error') {
      if (this.#errorCount++ < MAX_PROBLEMS) this.#errors.push(problem);
    } else if (this.#warningCount++ < MAX_PROBLEMS) this.#warnings.push(problem);
  }

  /** Number of errors so far, those beyond the bound included. */
  get errorCount(): number {
    return this.#errorCount;
  }

  /** Errors, then warnings, at most `MAX_PROBLEMS` and a summary of what was left out. */
  toArray(): Problem[] {
    const shown = [...this.#errors, ...this.#warnings].slice(0, MAX_PROBLEMS);
    const hidden = this.#errorCount + this.#warningCount - shown.length;
    if (hidden === 0) return shown;
    const severity = this.#errorCount > MAX_PROBLEMS ? 'error' : 'warning';
    const message = `${hidden} more problems are not shown (the limit is ${MAX_PROBLEMS})`;
    return [...shown, { document: 0, rule: 'too_many_problems', message, severity }];
  }
}

/** Turns offsets into lines and columns; the index of lines is built when the first is asked for. */
export class LineIndex {
  readonly #text: string;
  #starts: number[] | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  /** 1-based line and column of an offset in UTF-16 units. */
  at(offset: number): { line: number; column: number } {
    this.#starts ??= lineStarts(this.#text);
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#starts[middle] ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return { line: low + 1, column: offset - (this.#starts[low] ?? 0) + 1 };
  }
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}

/** A JSON pointer (RFC 6901) of path segments. */
export function jsonPointer(...segments: readonly (string | number)[]): string {
  return segments.map((segment) => `/${String(segment).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
