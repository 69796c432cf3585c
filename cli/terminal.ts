/** The part of a stream that output needs; `process.stdout` is one. */
export interface OutputStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Where a command writes. Results go to stdout, everything else to stderr. */
export interface Terminal {
  /** One line of the result. */
  line(text?: string): void;
  /** One line beside the result, on stderr: warnings, hints, errors. */
  note(text: string): void;
  /** What is being waited for: one line that is overwritten on a terminal, a line for each change of the text elsewhere. */
  progress(text: string): void;
  /** Ends the line of `progress`, if one stands. */
  settle(): void;
  /** Clears the screen on a terminal, an empty line elsewhere. */
  clear(): void;
  /** Colours on a terminal, the text as it is elsewhere. */
  readonly paint: Paint;
}

/** Colours a text. */
export type Paint = (colour: Colour, text: string) => string;

/** The few colours in use. */
export type Colour = 'red' | 'green' | 'yellow' | 'cyan' | 'dim' | 'bold';

const CODES: Readonly<Record<Colour, number>> = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2, bold: 1 };
const ESC = '\u001b[';

/** Output on a pair of streams. Colour only where stdout is a terminal and `NO_COLOR` is empty (no-color.org). */
export function createTerminal(
  stdout: OutputStream,
  stderr: OutputStream,
  env: Readonly<Record<string, string | undefined>>,
): Terminal {
  const coloured = stdout.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
  const rewrites = stderr.isTTY === true && env.TERM !== 'dumb';
  let progress = '';
  const settle = () => {
    if (progress !== '' && rewrites) stderr.write(`\r${ESC}K`);
    progress = '';
  };
  return {
    line(text = '') {
      settle();
      stdout.write(`${text}\n`);
    },
    note(text) {
      settle();
      stderr.write(`${text}\n`);
    },
    progress(text) {
      if (text === progress) return;
      progress = text;
      const width = (stderr.columns ?? 80) - 1;
      stderr.write(rewrites ? `\r${ESC}K${text.slice(0, width)}` : `${text}\n`);
    },
    settle,
    clear() {
      settle();
      stdout.write(stdout.isTTY === true ? `${ESC}H${ESC}2J` : '\n');
    },
    paint: (colour, text) => (coloured ? `${ESC}${CODES[colour]}m${text}${ESC}0m` : text),
  };
}

/** One cell: a text, or a text with a colour (kept apart so that the width is right). */
export type Cell = string | { readonly text: string; readonly colour: Colour };

/** Rows under a header, columns as wide as their widest cell, two blanks apart. */
export function table(header: readonly string[], rows: readonly (readonly Cell[])[], paint: Paint): string[] {
  const textOf = (cell: Cell | undefined) => (typeof cell === 'object' ? cell.text : (cell ?? ''));
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => textOf(row[column]).length)));
  const format = (row: readonly Cell[]) =>
    row
      .map((cell, column) => {
        const text = textOf(cell);
        const padding = column === row.length - 1 ? '' : ' '.repeat((widths[column] ?? 0) - text.length);
        return (typeof cell === 'object' ? paint(cell.colour, text) : text) + padding;
      })
      .join('  ')
      .trimEnd();
  return [paint('bold', format(header)), ...rows.map(format)];
}

/** A span for people: `12 ms`, `2.3 s`, `4 m 5 s`, `3 h 10 m`, `6 d 2 h`. */
export function spanText(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  const two = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  if (seconds < 3_600) return two(Math.floor(seconds / 60), 'm', seconds % 60, 's');
  if (seconds < 86_400) return two(Math.floor(seconds / 3_600), 'h', Math.floor((seconds % 3_600) / 60), 'm');
  return two(Math.floor(seconds / 86_400), 'd', Math.floor((seconds % 86_400) / 3_600), 'h');
}
