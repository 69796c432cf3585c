import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { type Bench, report, table } from './bench.ts';

const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  apply: async () => (await import('./apply.ts')).bench,
  publish: async () => (await import('./publish.ts')).bench,
  latency: async () => (await import('./latency.ts')).bench,
  idle: async () => (await import('./idle.ts')).bench,
  streams: async () => (await import('./streams.ts')).bench,
  agent: async () => (await import('./agent.ts')).bench,
  gateway: async () => (await import('./gateway.ts')).bench,
  flows: async () => (await import('./flows.ts')).bench,
};

const USAGE = 'usage: npm run bench -- list | NAME… [--json FILE]\n';

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: 'string' } } });
if (positionals.length === 0 || positionals.some((name) => name !== 'list' && !BENCHES[name])) {
  process.stderr.write(USAGE);
  process.exitCode = 2;
} else if (positionals[0] === 'list') {
  for (const [name, load] of Object.entries(BENCHES)) process.stdout.write(`${name.padEnd(10)} ${(await load()).about}\n`);
} else {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new Error('interrupted')));
  const reports = [];
  for (const name of positionals) {
    const bench = await BENCHES[name]?.();
    if (!bench) continue;
    const results = await bench.run((line) => void process.stderr.write(`${name}: ${line}\n`), stop.signal);
    const done = report(name, results);
    reports.push(done);
    process.stdout.write(`${table(done)}\n\n`);
    if (results.some(({ met }) => met === false)) process.exitCode = 1;
  }
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify(reports.length === 1 ? reports[0] : reports, null, 2)}\n`);
}
