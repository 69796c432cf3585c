/** An instruction of a Dockerfile, with its line for errors. */
export interface Instruction {
  readonly line: number;
  /** In capitals. */
  readonly name: string;
  /** `--from=build` as `from: 'build'`. */
  readonly flags: Readonly<Record<string, string>>;
  /** The rest: continued lines joined as the shell would read them. */
  readonly text: string;
}

/** What begins with FROM. */
export interface Stage {
  readonly base: string;
  /** After AS; empty when it has none. */
  readonly name: string;
  readonly instructions: readonly Instruction[];
}

/**
 * Reads the stages of a Dockerfile (https://docs.docker.com/reference/dockerfile/). Comments, continued lines and flags are
 * understood; heredocs, ONBUILD and other escape characters are not, and ARG before the first FROM is refused.
 */
export function parseDockerfile(text: string): Stage[] {
  const stages: { base: string; name: string; instructions: Instruction[] }[] = [];
  for (const instruction of instructions(text)) {
    if (instruction.name === 'FROM') {
      const [base = '', as, name = ''] = instruction.text.split(/\s+/);
      if (as !== undefined && as.toUpperCase() !== 'AS') throw new Error(`line ${instruction.line}: FROM has no ${as}`);
      stages.push({ base, name, instructions: [] });
      continue;
    }
    const stage = stages.at(-1);
    if (!stage) throw new Error(`line ${instruction.line}: ${instruction.name} before the first FROM`);
    stage.instructions.push(instruction);
  }
  return stages;
}

function* instructions(text: string): Generator<Instruction> {
  const lines = text.split('\n');
  for (let at = 0; at < lines.length; at++) {
    const line = at + 1;
    let whole = lines[at] ?? '';
    if (/^\s*(#|$)/.test(whole)) continue;
    while (whole.endsWith('\\')) whole = whole.slice(0, -1) + (lines[++at] ?? '').trimStart();
    const [, name = '', flags = '', rest = ''] = /^\s*(\w+)((?:\s+--[\w-]+=\S+)*)\s*(.*)$/.exec(whole) ?? [];
    const pairs = [...flags.matchAll(/--([\w-]+)=(\S+)/g)].map(([, key = '', value = '']) => [key, value]);
    yield { line, name: name.toUpperCase(), flags: Object.fromEntries(pairs), text: rest.trim() };
  }
}

/** Reads `key=value` pairs as ENV and LABEL have them; values may be in double quotes. */
export function pairsOf({ text, line, name }: Instruction): Record<string, string> {
  const pairs = [...text.matchAll(/([\w.-]+)=(?:"([^"]*)"|(\S*))(?:\s+|$)/gy)];
  if (pairs.map(([all]) => all).join('') !== text)
    throw new Error(`line ${line}: ${name} is not made of key=value pairs: ${text}`);
  return Object.fromEntries(pairs.map(([, key = '', quoted, bare]) => [key, quoted ?? bare ?? '']));
}
