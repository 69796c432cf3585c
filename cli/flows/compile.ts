import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { compile as compileModel } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import type { Cli } from '../cli.ts';
import { type ModelOptions, readModel, told } from './model-source.ts';

/** Options of `brokkr flows compile`. */
export interface CompileCommandOptions extends ModelOptions {
  readonly output: string;
  readonly granularity: 'endpoint' | 'flow';
  readonly cluster?: string;
  readonly allowBroad?: boolean;
}

/** `brokkr flows compile`: the policies of a flow set, to stdout, or into one file of a folder, in the order to apply them. */
export async function compile(
  cli: Cli,
  { output, granularity, cluster, allowBroad, ...options }: CompileCommandOptions,
): Promise<void> {
  const model = await readModel(cli, options);
  const chosen = { granularity, allowBroad: allowBroad === true, ...(cluster !== undefined && { cluster }) };
  const { objects, notes } = await told(async () => compileModel(model, chosen));
  for (const { subject, message } of notes) cli.terminal.note(`${subject}: ${message}`);
  if (output === 'json')
    return cli.terminal.line(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }, undefined, 2));
  if (output === 'yaml') return cli.terminal.line(policyText(objects).trimEnd());
  await mkdir(output, { recursive: true });
  const file = join(output, `${[model.name, ...(cluster === undefined ? [] : [cluster])].join('.')}.yaml`);
  await writeFile(file, policyText(objects));
  cli.terminal.line(`${objects.length} policies in ${file}`);
}
