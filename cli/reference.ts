import type { Command, Option } from 'commander';
import { EXIT } from './failure.ts';

const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: 'done; with `--wait`, healthy on every targeted agent; `diff`: no differences',
  error: 'it failed; stderr says why and what to do next',
  usage: 'the command line is wrong',
  differences: '`diff` found differences',
  timeout: '`--timeout` is over and an agent is not there yet',
  agentFailed:
    'an agent refused the stack, went back to an earlier generation, failed to apply it for 10 s on end, or kept what it should remove',
  interrupted: 'Ctrl-C',
};

/** The text of docs/reference/cli.md, written from the table of commands. */
export function cliReference(program: Command): string {
  return [
    '# brokkr, the command line',
    '',
    'Written from the table of commands in `cli/program.ts`; `vitest run -u cli/reference.test.ts` writes it anew.',
    '',
    'Which broker: flags win over the environment (`BROKKR_BROKER_URL`, `BROKKR_PAK`, `BROKKR_CA_FILE`), which wins over the',
    'current context in `~/.brokkr/config` (JSON, mode 0600; `brokkr up` writes one). A key from the file is only sent to the',
    'broker it was saved for. Results go to stdout, everything else to stderr. Colours appear on a terminal unless `NO_COLOR` is',
    'set. An agent is named `NAME`, `CLUSTER/NAME` or by id; stacks, generators and keys by name or id.',
    '',
    '## Exit codes',
    '',
    '| Code | Meaning |',
    '|---|---|',
    ...Object.entries(EXIT).map(([name, code]) => `| ${code} | ${EXIT_MEANINGS[name as keyof typeof EXIT]} |`),
    '',
    '## Options of every command',
    '',
    ...optionTable(program.options),
    ...program.commands.flatMap((command) => commandLines(command, 'brokkr')),
    '',
  ].join('\n');
}

function commandLines(command: Command, parent: string): string[] {
  const chain = `${parent} ${command.name()}`;
  if (command.commands.length > 0) return command.commands.flatMap((child) => commandLines(child, chain));
  const args = command.registeredArguments.map((argument) => {
    const text = `${argument.name()}${argument.variadic ? '...' : ''}`;
    return argument.required ? ` <${text}>` : ` [${text}]`;
  });
  const choices = command.registeredArguments
    .filter(({ argChoices }) => argChoices)
    .map(
      (argument) =>
        `\`${argument.name()}\` is one of ${(argument.argChoices ?? []).map((choice) => `\`${choice}\``).join(', ')}.`,
    );
  const about = [`${sentence(command.description())}`, ...choices].join(' ');
  const options = command.options.length > 0 ? ['', ...optionTable(command.options)] : [];
  return ['', `## ${chain}${args.join('')}`, '', about, ...options];
}

function optionTable(options: readonly Option[]): string[] {
  const rows = options.map((option) => {
    const fallback = option.defaultValueDescription ?? (option.defaultValue === undefined ? '' : String(option.defaultValue));
    const choices = option.argChoices ? ` (${option.argChoices.join(', ')})` : '';
    return `| \`${option.flags}\` | ${option.description}${choices} | ${option.mandatory ? 'required' : fallback} |`;
  });
  return ['| Option | Meaning | Default |', '|---|---|---|', ...rows];
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
