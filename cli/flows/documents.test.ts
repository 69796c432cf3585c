import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Runs the real program in the repository. */
async function brokkr(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const command = [`${root}/bin/brokkr.js`, 'flows', ...args];
  return promisify(execFile)(process.execPath, command, { cwd: root }).then(
    ({ stdout, stderr }) => ({ stdout, stderr, code: 0 }),
    ({ stdout, stderr, code }) => ({ stdout, stderr, code }),
  );
}

const BROKKR = ['-f', 'examples/brokkr'];
const MINIMUM = [...BROKKR, '--without', 'metrics,otlp', '--with', 'external-broker'];

describe('brokkr flows', () => {
  it.each([
    [['matrix', ...BROKKR], 'matrix.md'],
    [['matrix', ...BROKKR, '-o', 'csv'], 'matrix.csv'],
    [['diagram', ...BROKKR, '--without', 'metrics', '-o', 'mermaid-c4'], 'topology-c4.mmd'],
    [['diagram', ...BROKKR, '--without', 'metrics', '-o', 'svg'], 'topology.svg'],
    [['firewall', ...MINIMUM, '--host', 'agent'], 'host-agent.md'],
    [['firewall', ...MINIMUM, '--host', 'broker', '--cloud', 'aws'], 'broker-aws.json'],
    [['firewall', ...MINIMUM, '--host', 'broker', '--cloud', 'nftables'], 'broker.nft'],
  ])('%j prints the golden file', async (args, file) => {
    const { stdout, code } = await brokkr(...args);
    expect(code).toBe(0);
    expect(stdout).toBe(await readFile(`${root}/examples/brokkr/golden/${file}`, 'utf8'));
  });

  it('prints tables as data', async () => {
    const { stdout } = await brokkr('matrix', ...BROKKR, '-o', 'json', '--table', 'implicit');
    expect(JSON.parse(stdout)[0]).toMatchObject({ Source: 'Agent', Destination: 'K8s API', Port: '443' });
  });

  it('warns beside the document when a platform needs more rules than it has', async () => {
    const { stderr } = await brokkr('firewall', ...MINIMUM, '--host', 'broker', '--cloud', 'aws');
    expect(stderr).toContain('warning: 74 outbound rules for IPv4');
  });

  // W-090
  it('prints a change of reachability as a decision record', async () => {
    const golden = 'examples/brokkr/golden/policies.yaml';
    const { stdout, code } = await brokkr('diff', golden, golden, '--adr', 'Nothing changes');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^# Nothing changes\n\nDate: \d{4}-\d\d-\d\d\n/);
    expect(stdout).toContain('### Reachable from now on\n\nNone.\n');
  });

  // W-002
  it('prints the hops of a way', async () => {
    const { stdout } = await brokkr('path', 'admin', 'broker', ...BROKKR, '-o', 'json');
    expect(
      JSON.parse(stdout).map((hop: { from: string; to: string; ports: string }) => `${hop.from} ${hop.to} ${hop.ports}`),
    ).toEqual(['admin ingress 443', 'ingress broker 3000']);
  });

  it.each([
    [['path', 'db', ...BROKKR], 1, 'no flow leads from db'],
    [['path', 'nobody', ...BROKKR], 2, 'no endpoint is named nobody, there are admin'],
    [['matrix', ...BROKKR, '--table', 'x'], 2, 'there is no table x, there are matrix, implicit'],
    [['diagram', ...BROKKR, '--table', 'x'], 2, 'no flow is in the table x'],
    [['firewall', ...BROKKR, '--host', 'nobody'], 1, 'no endpoint, zone or cluster is named nobody'],
  ])('%j says what is wrong', async (args, code, message) => {
    expect(await brokkr(...args)).toMatchObject({ code, stdout: '', stderr: expect.stringContaining(message) });
  });
});
