import type { Command, Option } from 'commander';
import { FILE_OPTIONS } from './options.ts';

/** One command as completion sees it. */
interface Entry {
  /** Words from the program on: '' for the program itself, `create agent`. */
  readonly chain: string;
  readonly words: readonly Word[];
}

interface Word {
  readonly text: string;
  readonly description: string;
}

/** A completion script for a shell, written from the table of commands. */
export function completionScript(program: Command, shell: 'bash' | 'zsh' | 'fish'): string {
  const entries = entriesOf(program, '', globalOptions(program));
  const options = optionValues(program);
  switch (shell) {
    case 'bash':
      return bash(entries, options);
    case 'zsh':
      return zsh(entries, options);
    case 'fish':
      return fish(entries, options);
  }
}

function globalOptions(program: Command): readonly Word[] {
  return [...program.options.flatMap(optionWords), { text: '--help', description: 'print help' }];
}

function entriesOf(command: Command, chain: string, globals: readonly Word[]): Entry[] {
  const nested = command.commands.map((child) => ({ text: child.name(), description: child.description() }));
  const choices = (command.registeredArguments[0]?.argChoices ?? []).map((text) => ({ text, description: '' }));
  const own = chain === '' ? [] : command.options.flatMap(optionWords);
  const below = command.commands.flatMap((child) => entriesOf(child, `${chain} ${child.name()}`.trim(), globals));
  return [{ chain, words: [...nested, ...choices, ...own, ...globals] }, ...below];
}

function optionWords({ long, description }: Option): readonly Word[] {
  return long ? [{ text: long, description }] : [];
}

interface OptionValues {
  /** Options followed by a file. */
  readonly files: readonly string[];
  /** Options followed by one of these. */
  readonly choices: readonly { readonly names: readonly string[]; readonly values: readonly string[] }[];
}

function optionValues(program: Command): OptionValues {
  const all = [program, ...descendants(program)].flatMap(({ options }) => options);
  const names = ({ short, long }: Option) => [short, long].filter((name) => name !== undefined);
  const files = all.filter(({ long }) => long !== undefined && FILE_OPTIONS.has(long)).flatMap(names);
  const choices = Map.groupBy(
    all.filter(({ argChoices }) => argChoices),
    ({ long }) => long,
  );
  return {
    files: [...new Set(files)],
    // what any command takes for an option of this name
    choices: [...choices.values()].map((options) => ({
      names: [...new Set(options.flatMap(names))],
      values: [...new Set(options.flatMap(({ argChoices = [] }) => argChoices))],
    })),
  };
}

function descendants(command: Command): Command[] {
  return command.commands.flatMap((child) => [child, ...descendants(child)]);
}

function chainsOf(entries: readonly Entry[]): string[] {
  return entries.map(({ chain }) => chain).filter((chain) => chain !== '');
}

function texts(words: readonly Word[]): string {
  return words.map(({ text }) => text).join(' ');
}

function bash(entries: readonly Entry[], { files, choices }: OptionValues): string {
  return [
    '# bash completion for brokkr: source <(brokkr completion bash)',
    '_brokkr() {',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
    '  local chain="" word cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" offer=""',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
    '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
    '    case "${chain:+$chain }$word" in',
    `      ${chainsOf(entries).map(quoted).join('|')}) chain="\${chain:+$chain }$word" ;;`,
    '    esac',
    '  done',
    '  case "$prev" in',
    `    ${files.join('|')}) COMPREPLY=($(compgen -f -- "$cur")); return ;;`,
    ...choices.map(({ names, values }) => `    ${names.join('|')}) offer="${values.join(' ')}" ;;`),
    '    *)',
    '      case "$chain" in',
    ...entries.map(({ chain, words }) => `        ${quoted(chain)}) offer="${texts(words)}" ;;`),
    '      esac ;;',
    '  esac',
    '  COMPREPLY=($(compgen -W "$offer" -- "$cur"))',
    '}',
    'complete -o default -F _brokkr brokkr',
  ].join('\n');
}

function zsh(entries: readonly Entry[], { files, choices }: OptionValues): string {
  const described = ({ text, description }: Word) =>
    quoted(`${text.replaceAll(':', '\\:')}${description === '' ? '' : `:${description}`}`);
  return [
    '#compdef brokkr',
    '# zsh completion for brokkr: source <(brokkr completion zsh)',
    '_brokkr() {',
    '  local chain="" word',
    '  local -a offer',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
    '  for word in "${(@)words[2,CURRENT-1]}"; do',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
    '    case "${chain:+$chain }$word" in',
    `      (${chainsOf(entries).map(quoted).join('|')}) chain="\${chain:+$chain }$word" ;;`,
    '    esac',
    '  done',
    '  case "$words[CURRENT-1]" in',
    `    (${files.join('|')}) _files; return ;;`,
    ...choices.map(({ names, values }) => `    (${names.join('|')}) offer=(${values.join(' ')}) ;;`),
    '    (*)',
    '      case "$chain" in',
    ...entries.map(({ chain, words }) => `        (${quoted(chain)}) offer=(${words.map(described).join(' ')}) ;;`),
    '      esac ;;',
    '  esac',
    '  _describe brokkr offer',
    '}',
    'if [ "$funcstack[1]" = _brokkr ]; then _brokkr; else compdef _brokkr brokkr; fi', // from fpath, or sourced
  ].join('\n');
}

function fish(entries: readonly Entry[], { files, choices }: OptionValues): string {
  const offer = ({ text, description }: Word) => `        printf '%s\\t%s\\n' ${quoted(text)} ${quoted(description)}`;
  return [
    '# fish completion for brokkr: brokkr completion fish | source',
    'function __brokkr_offer',
    '  set -l tokens (commandline -opc)',
    '  set -l chain',
    '  for word in $tokens[2..]',
    '    switch "$chain $word"',
    `      case ${chainsOf(entries)
      .map((chain) => quoted(` ${chain}`))
      .join(' ')}`,
    '        set chain "$chain $word"',
    '    end',
    '  end',
    '  switch "$tokens[-1]"',
    `    case ${files.join(' ')}`,
    '      __fish_complete_path',
    ...choices.flatMap(({ names, values }) => [`    case ${names.join(' ')}`, `      printf '%s\\n' ${values.join(' ')}`]),
    "    case '*'",
    '      switch "$chain"',
    ...entries.flatMap(({ chain, words }) => [`      case ${quoted(chain === '' ? '' : ` ${chain}`)}`, ...words.map(offer)]),
    '      end',
    '  end',
    'end',
    "complete -c brokkr -f -a '(__brokkr_offer)'",
  ].join('\n');
}

/** A word for all three shells: in single quotes, its own taken out (no text of ours needs one). */
function quoted(text: string): string {
  return `'${text.replaceAll("'", '’')}'`;
}
