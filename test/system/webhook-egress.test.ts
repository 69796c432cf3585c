import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
/** A pod and an endpoint with a public address; what a policy does with packets of the pod is done on the way into the second. */
const POD = { namespace: `brokkr-pod-${process.pid}`, link: `wp${process.pid}`, address: '203.0.113.10' };
const SINK = { namespace: `brokkr-sink-${process.pid}`, link: `ws${process.pid}`, address: '203.0.113.20' };
const POLICY = `table inet guard {
  chain egress {
    type filter hook input priority 0;
    tcp dport 443 drop
    tcp dport 444 reject with icmpx type admin-prohibited
    tcp dport 445 reject with tcp reset
  }
}
`;
const SERVER = `require('node:http').createServer((q, s) => s.writeHead(204).end()).listen(80, '${SINK.address}', () => console.log('ready'))`;

const inside = (namespace: string, ...command: string[]) => ['netns', 'exec', namespace, ...command];
let server: ReturnType<typeof spawn> | undefined;

beforeAll(async () => {
  for (const { namespace } of [POD, SINK]) await run('ip', ['netns', 'add', namespace]);
  const veth = ['link', 'add', POD.link, 'netns', POD.namespace, 'type', 'veth', 'peer', 'name', SINK.link];
  await run('ip', [...veth, 'netns', SINK.namespace]);
  for (const { namespace, link, address } of [POD, SINK]) {
    await run('ip', ['-n', namespace, 'addr', 'add', `${address}/24`, 'dev', link]);
    for (const device of ['lo', link]) await run('ip', ['-n', namespace, 'link', 'set', device, 'up']);
  }
  const loading = run('ip', inside(SINK.namespace, 'nft', '-f', '-'));
  loading.child.stdin?.end(POLICY);
  await loading;
  server = spawn('ip', inside(SINK.namespace, process.execPath, '-e', SERVER), { stdio: ['ignore', 'pipe', 'inherit'] });
  if (server.stdout) await once(server.stdout, 'data');
});

afterAll(async () => {
  server?.kill();
  for (const { namespace } of [POD, SINK]) await run('ip', ['netns', 'del', namespace]);
});

describe('a webhook from behind a policy', () => {
  it.each([
    ['that lets it out', 80, { kind: 'delivered', statusCode: 204 }],
    ['that drops it', 443, { kind: 'failed', failure: 'unreachable', message: 'no connection to the endpoint within 2000 ms' }],
    ['that rejects it', 444, { kind: 'failed', failure: 'unreachable' }],
    ['that resets it, as where nobody listens', 445, { kind: 'failed', failure: 'refused' }],
    ['where nobody listens', 81, { kind: 'failed', failure: 'refused' }],
  ])('%s ends in a way of its own', async (_policy, port, outcome) => {
    const script = fileURLToPath(new URL('webhook-sender.ts', import.meta.url));
    const { stdout } = await run('ip', inside(POD.namespace, process.execPath, script, `http://${SINK.address}:${port}/`));
    expect(JSON.parse(stdout)).toMatchObject(outcome);
  });
});
