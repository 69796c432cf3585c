import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { CliError } from './failure.ts';
import { createProgram } from './program.ts';
import { createTerminal } from './terminal.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-flows-'));
});
afterAll(() => rm(dir, { recursive: true }));

const example = (...path: string[]) => fileURLToPath(new URL(`../examples/${path.join('/')}`, import.meta.url));

/** Runs `brokkr flows …` in this process. */
async function flows(...args: string[]) {
  const out = { stdout: '', stderr: '', code: 0 };
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (out[name] += text) });
  const terminal = createTerminal(stream('stdout'), stream('stderr'), {});
  const program = createProgram({
    version: '0',
    run: async (work) => {
      const { signal } = new AbortController();
      out.code = (await work({ env: {}, clock: systemClock, terminal, flags: {}, signal })) ?? 0;
    },
  });
  await program.parseAsync(['flows', ...args], { from: 'user' });
  return out;
}

describe('brokkr flows', () => {
  it('checks a set in every profile', async () => {
    const { stdout, code } = await flows('check', '-f', example('red-kite'));
    expect(stdout).toBe(
      'red-kite production: 3 zones, 11 endpoints, 17 flows, 4 dropped\nred-kite development: 3 zones, 11 endpoints, 18 flows, 2 dropped\n',
    );
    expect(code).toBe(0);
  });

  it('tells everything that is wrong with its place', async () => {
    const file = join(dir, 'wrong.yaml');
    const text = await readFile(example('red-kite', 'flows.yaml'), 'utf8');
    await writeFile(file, text.replace('ports: 9092,', 'prots: 9092,').replace('ports: 3000,', 'ports: 0,'));
    const failure = await flows('check', '-f', file).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CliError);
    const { message, code, exitCode } = failure as CliError;
    expect({ code, exitCode }).toEqual({ code: 'invalid_flow_set', exitCode: 1 });
    expect(message).toMatch(
      /^2 problems\n {2}\S+wrong\.yaml:43:\d+: spec\.flows\[1\]\.ports must be >= 1\n {2}\S+:44:\d+: unknown field prots/,
    );
  });

  it('lints: 0 when what is left is accepted, 3 with warnings, 1 with an error', async () => {
    const clean = await flows('lint', '-f', example('red-kite'));
    expect(clean).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/flows\.yaml:53:7: PRIVATE-LEAK job-internet: .* \(accepted: the table excludes/),
    });
    expect(await flows('lint', '-f', example('red-kite'), '--profile', 'production,development')).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('EXPOSURE-IN-PRODUCTION dev-mongo: world reaches mongo in production'),
    });
    const file = join(dir, 'flows.yaml');
    const text = await readFile(example('red-kite', 'flows.yaml'), 'utf8');
    await writeFile(file, text.replace('lint: PRIVATE-LEAK', 'lint: BROAD-CIDR'));
    const { code, stdout } = await flows('lint', '-f', dir, '-o', 'json');
    expect({ code, findings: JSON.parse(stdout).findings }).toMatchObject({
      code: 3,
      findings: [{ lint: 'PRIVATE-LEAK', severity: 'warning' }],
    });
  });

  it.each([
    ['red-kite', 'production'],
    ['red-kite', 'development'],
    ['webgrip', ''],
  ])('finds the truth table of %s %s borne out by its policies, and says where it is not', async (name, profile) => {
    const folder = join(dir, `${name}-${profile}`);
    await cp(example(name), folder, { recursive: true });
    const args = ['lint', '-f', folder, ...(profile === '' ? [] : ['--profile', profile])];
    expect(await flows(...args)).toMatchObject({ code: 0, stdout: expect.not.stringContaining('DOC-DRIFT') });
    const file = join(folder, profile === '' ? 'truth.csv' : `truth.${profile}.csv`);
    const lines = (await readFile(file, 'utf8')).split('\n');
    const at = lines.findIndex((line) => line.endsWith(',true'));
    await writeFile(file, lines.with(at, lines[at]?.replace('true', 'false') ?? '').join('\n'));
    const { code, stdout } = await flows(...args);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      new RegExp(`truth\\S*\\.csv:${at + 1}:1: DOC-DRIFT \\S+ to \\S+: \\w+ \\d+ is denied in the table, and allowed`),
    );
  });

  it('compiles to stdout, and into one file of a folder', async () => {
    const golden = await readFile(example('red-kite', 'policies', 'development.yaml'), 'utf8');
    const args = ['compile', '-f', example('red-kite'), '--profile', 'development'];
    const { stdout, stderr } = await flows(...args);
    expect(stdout).toBe(golden);
    expect(stderr).toContain('kubeApi: uses the declared fact apiServer.endpoints = ["203.0.113.10"]');
    const out = join(dir, 'out');
    expect((await flows(...args, '-o', out)).stdout).toBe(`10 policies in ${join(out, 'red-kite.yaml')}\n`);
    expect(await readFile(join(out, 'red-kite.yaml'), 'utf8')).toBe(golden);
    expect(JSON.parse((await flows(...args, '-o', 'json')).stdout).items).toHaveLength(10);
  });

  it('does not compile a way from the world into production through the overlay of development', async () => {
    const args = ['compile', '-f', example('red-kite'), '--profile', 'production', '--profile', 'development'];
    await expect(flows(...args)).rejects.toThrow(/EXPOSURE-IN-PRODUCTION: flow dev-mongo: world reaches mongo/);
  });

  it('assumes facts without a file, and takes those of a named one', async () => {
    const set = example('red-kite', 'flows.yaml');
    expect((await flows('compile', '-f', set)).stderr).toContain(
      'kubeApi: uses the assumed fact apiServer.serviceIP = "10.96.0.1"',
    );
    expect((await flows('compile', '-f', set, '--facts', example('webgrip', 'facts.yaml'))).stderr).toContain('["10.0.0.2"]');
  });

  it('lists the flows that filters leave, as a table or as data with zones and endpoints', async () => {
    const idsOf = async (...filters: string[]) => {
      const { stdout } = await flows('list', '-f', example('red-kite'), '-o', 'json', ...filters);
      return JSON.parse(stdout).flows.map(({ id }: { id: string }) => id);
    };
    expect(await idsOf('--direction', 'north-south')).toEqual(['ui-in', 'job-internet']);
    expect(await idsOf('--direction', 'local', '--kind', 'control')).toEqual(['orchestrator-api']);
    expect(await idsOf('--table', 'none')).toEqual([]);
    const { zones, endpoints, flows: all } = JSON.parse((await flows('list', '-f', example('webgrip'), '-o', 'json')).stdout);
    expect(zones.map(({ name }: { name: string }) => name)).toEqual([
      'external',
      'ingress',
      'apps',
      'platform',
      'services',
      'admin',
    ]);
    expect([endpoints.length, all.length]).toEqual([16, 25]);
    const { stdout } = await flows('list', '-f', example('red-kite'), '--kind', 'control');
    expect(stdout).toMatch(
      /^ID +FROM +TO +PORTS +PROTOCOL +DIRECTION +KIND +REQUIRED +PURPOSE\norchestrator-api +Orchestrator +K8s API +443,6443 +TCP +local/,
    );
  });

  it('drops what has expired on the day that is named', async () => {
    const file = join(dir, 'flows.yaml');
    const text = await readFile(example('red-kite', 'flows.yaml'), 'utf8');
    await writeFile(file, text.replace('id: cron-fm,', 'id: cron-fm, expires: "2026-03-31",'));
    const dropped = async (today: string) =>
      JSON.parse((await flows('list', '-f', dir, '-o', 'json', '--today', today)).stdout).dropped.length;
    expect([await dropped('2026-03-31'), await dropped('2026-04-01')]).toEqual([4, 5]);
  });
});
