/**
 * Counts the rows of docs/requirements.md per group and status. With `--check` it also fails when a row marked `done` or
 * `partly` names no test, or names one that does not exist.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from './process.ts';

const TABLE = 'docs/requirements.md';
const STATUSES = ['done', 'partly', 'not yet'] as const;

type Status = (typeof STATUSES)[number];

interface Row {
  readonly id: string;
  readonly status: string;
  /** `path › title` each. */
  readonly tests: readonly string[];
}

function parse(text: string): Row[] {
  const rows: Row[] = [];
  for (const line of text.split('\n')) {
    if (!/^\| [A-Z]-\d{3} \|/.test(line)) continue;
    const [id = '', , status = '', tests = ''] = line
      .split(/(?<!\\)\|/)
      .slice(1)
      .map((cell) => cell.trim().replaceAll('\\|', '|'));
    rows.push({ id, status, tests: tests.split('<br>').flatMap((test) => (test.trim() ? [test.trim()] : [])) });
  }
  return rows;
}

function escaped(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

async function problem(test: string): Promise<string | undefined> {
  const match = /^`(?<file>[^`]+\.test\.ts)` › (?<title>.+)$/.exec(test);
  const { file, title } = match?.groups ?? {};
  if (!file || !title) return `"${test}" is not of the form \`path/file.test.ts\` › title`;
  const source = await readFile(join(ROOT, file), 'utf8').catch(() => undefined);
  if (source === undefined) return `${file} does not exist`;
  // the first argument of a call, whatever its quotes; a quote inside may be escaped
  const literal = escaped(title).replaceAll(/['"`]/g, '\\\\?$&');
  return new RegExp(`\\(\\s*(['"\`])${literal}\\1`).test(source) ? undefined : `${file} has no test '${title}'`;
}

async function check(rows: readonly Row[]): Promise<string[]> {
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const { id, status, tests } of rows) {
    if (seen.has(id)) problems.push(`${id} appears twice`);
    seen.add(id);
    if (!STATUSES.includes(status as Status)) problems.push(`${id}: status "${status}" is not one of ${STATUSES.join(', ')}`);
    else if (status !== 'not yet' && tests.length === 0) problems.push(`${id} is ${status} and names no test`);
    for (const test of tests) {
      const found = await problem(test);
      if (found) problems.push(`${id}: ${found}`);
    }
  }
  return problems;
}

function count(rows: readonly Row[], group: string): string {
  const inGroup = rows.filter(({ id }) => group === 'total' || id.startsWith(group));
  const counts = STATUSES.map((status) => String(inGroup.filter((row) => row.status === status).length).padStart(7));
  return `${group.padEnd(6)}${counts.join(' ')}${String(inGroup.length).padStart(8)}`;
}

const rows = parse(await readFile(join(ROOT, TABLE), 'utf8'));
console.log(`${'group'.padEnd(6)}${STATUSES.map((status) => status.padStart(7)).join(' ')}    rows`);
for (const group of [...new Set(rows.map(({ id }) => id.slice(0, 1))), 'total']) console.log(count(rows, group));
if (process.argv.includes('--check')) {
  const problems = await check(rows);
  if (rows.length === 0) problems.push(`${TABLE} has no rows`);
  for (const line of problems) console.log(line);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
