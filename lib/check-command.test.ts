import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { freePort } from '../hack/kube/ports.ts';
import { NETWORK_CHECKS, runCheckCommand } from './check-command.ts';
import { systemClock } from './clock.ts';

async function run(...args: string[]) {
  const out: string[] = [];
  const complaints: string[] = [];
  const deps = {
    ...{ program: 'brokkr-agent', checks: NETWORK_CHECKS, clock: systemClock },
    print: (text: string) => void out.push(text),
    complain: (text: string) => void complaints.push(text),
  };
  const code = await runCheckCommand(args, deps, new AbortController().signal);
  return { code, out: out.join(''), complaints: complaints.join('') };
}

describe('check', () => {
  it('prints what was tried, the result and the next step, and ends with 1', async () => {
    const port = await freePort();
    const { code, out } = await run('tcp', '127.0.0.1', String(port));
    expect(code).toBe(1);
    expect(out).toMatch(
      new RegExp(
        `^check tcp 127.0.0.1:${port}\n  FAILED +\\d+ ms  connect to 127.0.0.1:${port}: connect ECONNREFUSED .*\nresult: refused\nnext: compare the port`,
      ),
    );
  });

  it('prints JSON with the same in it, and ends with 0 when all is well', async () => {
    const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const { code, out } = await run('tcp', '127.0.0.1', String(port), '-o', 'json');
    server.close();
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({
      ...{ check: 'tcp', target: `127.0.0.1:${port}`, result: 'ok' },
      steps: [{ tried: `connect to 127.0.0.1:${port}`, ok: true, ms: expect.any(Number), said: '' }],
    });
  });

  it.each([
    [[], 'which check?'],
    [['ping', 'x'], 'no check "ping"'],
    [['tcp', 'x'], 'check tcp HOST PORT is the form'],
    [['tcp', 'x', '70000'], '70000 is no port'],
    [['http', 'ftp://x'], 'no http or https URL'],
    [['dns', 'x', '--server', '::1'], 'IPv6 in brackets'],
    [['tcp', 'x', '1', '-o', 'yaml'], 'text or json'],
    [['tcp', 'x', '1', '--timeout', '0'], 'at most 300 seconds'],
    [['tcp', 'x', '1', '--colour'], '--colour'],
  ])('%j is answered with %s, the usage and 2', async (args, complaint) => {
    const { code, complaints } = await run(...args);
    expect(code).toBe(2);
    expect(complaints).toContain(complaint);
    expect(complaints).toContain('usage: brokkr-agent check CHECK');
  });

  it('prints its help', async () => {
    expect(await run('--help')).toMatchObject({ code: 0, out: expect.stringContaining('dns NAME') });
  });
});
