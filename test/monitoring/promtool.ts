import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dump } from 'js-yaml';
import { findPrometheus, type PrometheusProgram } from '../../hack/prometheus/prometheus.ts';

/** The path of Debian's Prometheus or promtool, fetched on the machine's first use. */
export function prometheusProgram(program: PrometheusProgram): Promise<string> {
  const progress = (line: string) => process.stderr.write(`prometheus: ${line}\n`);
  return findPrometheus(program, { env: process.env, progress }, new AbortController().signal);
}

/** What promtool says, and its exit code: 0 when it has nothing against it. */
export interface Verdict {
  readonly code: number;
  readonly text: string;
}

/** Runs promtool; `input` is what it reads. */
export async function promtool(args: readonly string[], input = ''): Promise<Verdict> {
  const child = spawn(await prometheusProgram('promtool'), [...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  const parts: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => parts.push(part));
  child.stdin.end(input);
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exit) => resolve(exit ?? 1));
  });
  return { code, text: Buffer.concat(parts).toString('utf8') };
}

/** Runs promtool on a file with this content. */
export async function promtoolOn(args: readonly string[], content: object): Promise<Verdict> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-promtool-'));
  try {
    const file = join(dir, 'content.yaml');
    await writeFile(file, dump(content));
    return await promtool([...args, file]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
