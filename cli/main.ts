import { CommanderError } from 'commander';
import { systemClock } from '#lib/clock.ts';
import { stopSignal } from '#lib/run.ts';
import manifest from '../package.json' with { type: 'json' };
import { EXIT, errorLines } from './failure.ts';
import { createProgram } from './program.ts';
import { createTerminal } from './terminal.ts';

const terminal = createTerminal(process.stdout, process.stderr, process.env);
const signal = stopSignal();
// a reader that has enough, such as head, is no failure
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? EXIT.ok : EXIT.error));

const program = createProgram({
  version: manifest.version,
  async run(work) {
    const flags = program.opts();
    process.exitCode = (await work({ env: process.env, clock: systemClock, terminal, flags, signal })) ?? EXIT.ok;
  },
});

try {
  await program.parseAsync();
} catch (error) {
  terminal.settle();
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage; // it has printed its text itself
  } else if (signal.aborted) {
    process.exitCode = EXIT.interrupted;
  } else {
    const [first = '', ...rest] = errorLines(error);
    terminal.note(first.replace(/^error:/, terminal.paint('red', 'error:')));
    for (const line of rest) terminal.note(line);
    process.exitCode = error instanceof Error && 'exitCode' in error ? Number(error.exitCode) : EXIT.error;
  }
}
