/**
 * Every gate a change has to pass: `npm run check`. One line a gate with its seconds; the output of those that failed
 * comes last. `node hack/check.ts NAME…` runs only the gates named.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkBaselineHistory, checkBreaking, checkPlantedBaseline, checkPlantedBreakage } from './breaking.ts';
import { checkPlantedCode } from './planted.ts';
import { ROOT, run } from './process.ts';

/** Returns what is wrong, in lines for a person; empty when the gate is passed. */
type Gate = () => Promise<readonly string[]>;

const GATES: Readonly<Record<string, Gate>> = {
  biome: command('biome', ['check', '--reporter=default', '--max-diagnostics=100', '.']),
  'planted code': () => checkPlantedCode(ROOT),
  tsc: command('tsc', ['--noEmit', '--project', '.']),
  'buf lint': command('buf', ['lint']),
  'buf format': command('buf', ['format', '--diff', '--exit-code']),
  'buf breaking': () => checkBreaking(ROOT),
  'planted breakage': checkPlantedBreakage,
  'baseline in changelog': () => checkBaselineHistory(ROOT),
  'planted baseline': checkPlantedBaseline,
  knip: command('knip', ['--no-progress']),
  generated: command('node', ['hack/generate.ts', '--check']),
  'lock file': command('node', ['hack/trim-lockfile.ts', '--check']),
  licences: command('node', ['hack/licences.ts']),
  requirements: command('node', ['hack/requirements.ts', '--check']),
  ...(existsSync(join(ROOT, 'hack/contract.ts')) ? { contract: command('node', ['hack/contract.ts']) } : {}),
};

function command(name: string, args: readonly string[]): Gate {
  return async () => {
    const { code, stdout, stderr } = await run(name, args);
    return code === 0 ? [] : [`${stdout}${stderr}`.trimEnd() || `${name} ended with ${code}`];
  };
}

async function timed(name: string, gate: Gate): Promise<readonly string[]> {
  const start = performance.now();
  const problems = await gate().catch((error: unknown) => [
    error instanceof Error ? (error.stack ?? error.message) : String(error),
  ]);
  const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(5);
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${seconds} s  ${name}`);
  return problems;
}

const only = process.argv.slice(2);
const unknown = only.filter((name) => !(name in GATES));
if (unknown.length > 0) throw new Error(`no gate named ${unknown.join(', ')}; there are ${Object.keys(GATES).join(', ')}`);
const gates = Object.entries(GATES).filter(([name]) => only.length === 0 || only.includes(name));
const results = await Promise.all(gates.map(async ([name, gate]) => ({ name, problems: await timed(name, gate) })));
const failed = results.filter(({ problems }) => problems.length > 0);
for (const { name, problems } of failed) console.log(`\n── ${name} ──\n${problems.join('\n')}`);
if (failed.length > 0) {
  console.log(`\n${failed.length} of ${gates.length} gates failed: ${failed.map(({ name }) => name).join(', ')}`);
  process.exitCode = 1;
}
