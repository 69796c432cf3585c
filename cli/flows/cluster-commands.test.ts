import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import type { Cli } from '../cli.ts';
import { CliError } from '../failure.ts';
import { createTerminal } from '../terminal.ts';
import { connectivity } from './connectivity.ts';
import { diffFlows } from './diff.ts';
import { evaluate } from './evaluate.ts';
import { explain } from './explain.ts';
import { lint } from './lint.ts';
import { verify } from './verify.ts';

const redKite = fileURLToPath(new URL('../../examples/red-kite', import.meta.url));

const MANIFESTS = `
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { containers: [{ name: main }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: db, namespace: shop }
spec: { template: { metadata: { labels: { app: db } }, spec: { containers: [{ name: main, ports: [{ name: sql, containerPort: 5432 }] }] } } }
---
apiVersion: v1
kind: Service
metadata: { name: sql, namespace: shop }
spec: { selector: { app: db }, ports: [{ port: 1000, targetPort: sql }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: shop }
spec:
  podSelector: { matchLabels: { app: db } }
  policyTypes: [Ingress]
  ingress:
    - from: [{ podSelector: { matchLabels: { app: web } } }]
      ports: [{ port: sql }]
`;

let dir: string;
let manifests: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-flows-'));
  manifests = await file('shop.yaml', MANIFESTS);
});
afterAll(() => rm(dir, { recursive: true }));

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(dir, name), text);
  return join(dir, name);
}

const stdin = (text = '') => Readable.from([text]);

/** Runs a command with a terminal of its own; what it prints, and its exit code or its error. */
async function run(work: (cli: Cli) => Promise<unknown>): Promise<{ out: string; code: unknown; error: string }> {
  let out = '';
  const terminal = createTerminal({ write: (text) => (out += text) }, { write: () => {} }, {});
  const cli: Cli = { env: {}, clock: systemClock, flags: {}, signal: new AbortController().signal, terminal };
  try {
    return { code: (await work(cli)) ?? 0, out, error: '' };
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return { code: error.exitCode, out, error: error.message };
  }
}

describe('brokkr flows', () => {
  const options = { cni: 'generic', output: 'json' } as const;

  it('evaluate prints the cells it was given with verdict and reason', async () => {
    const cell = (pod: string, port: number) => ({
      src: { namespace: 'shop', pod },
      dst: { namespace: 'shop', pod: 'db' },
      protocol: 'TCP',
      port,
      note: 'kept',
    });
    const cells = [cell('web', 5432), cell('web', 80), cell('db', 5432)];
    const given = { ...options, filename: [manifests], cells: '-' };
    const { out, code } = await run((cli) => evaluate(cli, given, stdin(JSON.stringify(cells))));
    expect(code).toBe(0);
    const judged = JSON.parse(out);
    expect(judged.map(({ verdict: _, reason: __, ...rest }: Record<string, unknown>) => rest)).toEqual(cells);
    expect(judged.map(({ verdict }: { verdict: string }) => verdict)).toEqual(['allowed', 'denied', 'denied']);
    expect(judged[1].reason).toContain('no-ingress-rule: NetworkPolicy shop/db isolates shop/db');
  });

  it.each([
    ['[{"src":{"ip":"x"},"dst":{"ip":"1.1.1.1"},"port":1}]', '-:1:2: "x" is no IP address'],
    ['[\n {"src":{"ip":"1.1.1.1"},"dst":{"ip":"1.1.1.1"},"port":0}]', '-:2:2: port must be between 1 and 65535'],
    ['[{"src":{"namespace":"a","pod":"b"},"dst":{"ip":"1.1.1.1"},"port":1}]', '-:1:2: there is no pod or workload a/b'],
    ['[{"dst":{"ip":"1.1.1.1"},"port":1}]', '-:1:2: src must be {"namespace", "pod"} or {"ip"}'],
    ['[{"port":1,"protocol":"ICMP"}]', '-:1:2: protocol must be TCP, UDP, SCTP'],
    ['{}', '-: must hold one list of cells'],
    ['[', '-:1:2: '],
  ])('evaluate refuses the cells %j', async (cells, message) => {
    const given = { ...options, filename: [manifests], cells: '-' };
    const { code, error } = await run((cli) => evaluate(cli, given, stdin(cells)));
    expect(error).toContain(message);
    expect(code).toBe(1);
  });

  it('names file, line and column of what it cannot use', async () => {
    const bad = await file(
      'bad.yaml',
      MANIFESTS.replace('[{ port: sql }]', '[{ port: sql, endPort: 3 }]').replace('app: db } }, spec', 'app: 1 } }, spec'),
    );
    const { code, error } = await run((cli) => connectivity(cli, { ...options, filename: [bad] }, stdin()));
    expect(code).toBe(1);
    expect(error.split('\n').slice(1)).toEqual([
      `  ${bad}:10:43: must be text; quote it, in apps/v1 Deployment shop/db`,
      `  ${bad}:25:28: endPort needs a port that is a number, in networking.k8s.io/v1 NetworkPolicy shop/db`,
    ]);
  });

  it('connectivity prints one document of connections', async () => {
    const { out } = await run((cli) => connectivity(cli, { ...options, filename: [manifests] }, stdin()));
    const { connections } = JSON.parse(out);
    expect(connections).toContainEqual({ src: 'shop/web', dst: 'shop/db', protocol: 'TCP', ports: '5432' });
    expect(connections).toContainEqual({ src: '0.0.0.0/0', dst: 'shop/web', protocol: 'UDP', ports: '1-65535' });
    expect(connections.filter(({ dst }: { dst: string }) => dst === 'shop/db')).toHaveLength(1);
  });

  it('explain says what decided, where, and what is missing', async () => {
    const ask = (from: string, to: string, port: string) =>
      run((cli) => explain(cli, { from, to, port }, { cni: 'generic', output: 'table', filename: [manifests] }, stdin()));
    const open = await ask('shop/web', 'shop/sql', '1000'); // through the Service, on the target port
    expect(open.code).toBe(0);
    expect(open.out).toContain('shop/web → shop/db TCP 5432: allowed');
    expect(open.out).toContain(`NetworkPolicy shop/db ingress[0] at ${manifests}:24:7`);
    const closed = await ask('8.8.8.8', 'shop/db', '5432/tcp');
    expect(closed.code).toBe(3);
    expect(closed.out).toContain('from would have to name an ipBlock with 8.8.8.8; it names pods app=web in namespace shop');
    expect(await ask('shop/web', 'shop/sql', '5432')).toMatchObject({
      code: 1,
      error: 'the Service shop/sql has no port 5432/TCP',
    });
    expect((await ask('shop/web', 'shop/db', '0')).code).toBe(2);
  });

  it('verify and diff end with 3 and list what differs', async () => {
    const wider = await file('wider.yaml', MANIFESTS.replace('[{ port: sql }]', '[{ port: sql }, { port: 80 }]'));
    const table = { cni: 'generic', output: 'table' } as const;
    const changed = await run((cli) => diffFlows(cli, { before: manifests, after: wider }, table, stdin()));
    expect(changed).toEqual({ code: 3, error: '', out: '+ shop/web → shop/db TCP 80\n' });
    expect(await run((cli) => verify(cli, wider, { ...table, against: manifests }, stdin()))).toEqual(changed);
    expect(await run((cli) => diffFlows(cli, { before: wider, after: wider }, table, stdin()))).toMatchObject({
      code: 0,
      out: '',
    });
    const truth = await file('truth.csv', 'source,destination,protocol,port,allowed\nshop/web,shop/db,TCP,80,false\n');
    const met = await run((cli) => verify(cli, manifests, { ...table, expect: truth }, stdin()));
    expect(met).toEqual({ code: 0, error: '', out: '1 cells, 0 differ, 0 depend on the CNI\n' });
    const missed = await run((cli) => verify(cli, wider, { ...table, expect: truth }, stdin()));
    expect(missed.code).toBe(3);
    expect(missed.out).toContain('shop/web → shop/db TCP 80: expected denied, is allowed');
  });

  it('verify compiles a flow set, with the workloads beside it', async () => {
    const given = {
      cni: 'generic',
      output: 'table',
      profile: ['production'],
      expect: join(redKite, 'truth.production.csv'),
    } as const;
    const { out, code } = await run((cli) => verify(cli, redKite, given, stdin()));
    expect(out).toBe('2880 cells, 0 differ, 0 depend on the CNI\n');
    expect(code).toBe(0);
    const development = { ...given, profile: ['development'] };
    expect((await run((cli) => verify(cli, redKite, development, stdin()))).code).toBe(3);
  });

  it('lint of manifests leaves accepted findings out of the exit code', async () => {
    const open = await file('open.yaml', MANIFESTS.replace('from: [{ podSelector: { matchLabels: { app: web } } }]', 'from: []'));
    const found = await run((cli) => lint(cli, { filename: open, output: 'table' }));
    expect(found.code).toBe(3);
    expect(found.out).toBe(
      `${open}:24:7: OPEN-SOURCE NetworkPolicy shop/db ingress[0]: the rule has ports and no from: everyone reaches them\n`,
    );
    const accepted = await file('accepted.yaml', '- { lint: OPEN-SOURCE, subject: NetworkPolicy shop/db, reason: a webhook }\n');
    expect((await run((cli) => lint(cli, { filename: open, output: 'table', accepted }))).code).toBe(0);
    const wrong = await file('wrong.yaml', '- { lint: OPEN, reason: x }\n');
    expect((await run((cli) => lint(cli, { filename: open, output: 'table', accepted: wrong }))).error).toContain(
      'item 1 must have lint',
    );
  });
});
