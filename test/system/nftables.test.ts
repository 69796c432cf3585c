import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Connection } from '../../flows/firewall/connection.ts';
import { emitNftables } from '../../flows/firewall/nftables.ts';
import { firewallOf } from '../../flows/firewall/rules.ts';
import { installPrograms } from '../debian.ts';
import { firewallModel, flowsAllow } from '../flows/firewall-model.ts';
import type { Answer, Command } from '../flows/probe.ts';

const run = promisify(execFile);
const HOST = { namespace: `brokkr-host-${process.pid}`, link: `bh${process.pid}`, addresses: ['10.1.0.10', 'fd00:1::10'] };
/** Addresses of the other end, inside and beside every range of the model. */
const PEER = {
  namespace: `brokkr-peer-${process.pid}`,
  link: `bp${process.pid}`,
  addresses: [
    ...['10.2.0.0', '10.2.0.255', '10.2.1.0', '10.1.0.20', '10.1.0.21', '10.3.0.3', '10.3.0.4', '10.0.0.2', '10.0.0.3'],
    ...['192.0.2.6', '192.0.2.7', '192.0.2.127', '192.0.2.128', '192.168.7.7', '8.8.8.8', '11.0.0.0'],
    ...['2001:db8::1', 'fd00:2::1', 'fbff::1'],
  ],
};
const PORTS = [22, 443, 3000, 3001, 5432, 6443, 7000, 7999, 8000, 8010, 8011, 9100];
/** Silence means dropped; an answer comes within milliseconds, also from a machine that is busy. */
const DEADLINE_MS = 5_000;

let host: Prober;
let peer: Prober;

/** The program that opens connections in a namespace. */
class Prober {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<number, (open: boolean) => void>();
  #id = 0;

  constructor(namespace: string) {
    const script = fileURLToPath(new URL('../flows/probe.ts', import.meta.url));
    this.#child = spawn('ip', ['netns', 'exec', namespace, process.execPath, script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    }) as never;
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { id, open }: Answer = JSON.parse(line);
      this.#waiting.get(id)?.(open);
    });
  }

  do(command: Omit<Extract<Command, { op: 'listen' }>, 'id'> | Omit<Extract<Command, { op: 'probe' }>, 'id'>): Promise<boolean> {
    const id = this.#id++;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#waiting.set(id, resolve);
    this.#child.stdin.write(`${JSON.stringify({ ...command, id })}\n`);
    return promise;
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
  }
}

async function ip(...args: string[]): Promise<void> {
  await run('ip', args);
}

async function load(ruleset: string): Promise<void> {
  const loading = run('ip', ['netns', 'exec', HOST.namespace, 'nft', '-f', '-']);
  loading.child.stdin?.end(ruleset);
  await loading;
}

async function connectNamespaces(): Promise<void> {
  for (const { namespace } of [HOST, PEER]) await ip('netns', 'add', namespace);
  await ip('link', 'add', HOST.link, 'netns', HOST.namespace, 'type', 'veth', 'peer', 'name', PEER.link, 'netns', PEER.namespace);
  for (const { namespace, link, addresses } of [HOST, PEER]) {
    await ip('-n', namespace, 'link', 'set', 'lo', 'up');
    await ip('-n', namespace, 'link', 'set', link, 'up');
    for (const address of addresses) {
      const ipv6 = address.includes(':');
      await ip('-n', namespace, 'addr', 'add', `${address}/${ipv6 ? 128 : 32}`, 'dev', link, ...(ipv6 ? ['nodad'] : []));
    }
    await ip('-n', namespace, 'route', 'add', 'default', 'dev', link);
    await ip('-n', namespace, '-6', 'route', 'add', 'default', 'dev', link);
  }
}

/** Every listener that any probe could reach. UDP is bound to each address, so that answers come from where the question went. */
async function listenEverywhere(): Promise<void> {
  for (const [prober, { addresses }] of [
    [host, HOST],
    [peer, PEER],
  ] as const) {
    await Promise.all(
      PORTS.flatMap((port) => [
        prober.do({ op: 'listen', protocol: 'TCP', address: '::', port }),
        ...addresses.map((address) => prober.do({ op: 'listen', protocol: 'UDP', address, port })),
      ]),
    );
  }
}

function cells(): Connection[] {
  return (['inbound', 'outbound'] as const).flatMap((direction) =>
    (['TCP', 'UDP'] as const).flatMap((protocol) =>
      PORTS.flatMap((port) => PEER.addresses.map((address) => ({ direction, protocol, port, address, groups: [], own: false }))),
    ),
  );
}

async function isOpen({ direction, protocol, port, address }: Connection): Promise<boolean> {
  const near = HOST.addresses.find((own) => own.includes(':') === address.includes(':')) ?? '';
  const [prober, from, to] = direction === 'inbound' ? [peer, address, near] : [host, near, address];
  return prober.do({ op: 'probe', protocol: protocol as 'TCP' | 'UDP', from, to, port, deadlineMs: DEADLINE_MS });
}

beforeAll(async () => {
  await installPrograms({ nft: 'nftables', ip: 'iproute2' });
  await connectNamespaces();
  [host, peer] = [new Prober(HOST.namespace), new Prober(PEER.namespace)];
  await listenEverywhere();
});

afterAll(async () => {
  await Promise.all([host?.end(), peer?.end()]);
  for (const { namespace } of [HOST, PEER]) await ip('netns', 'del', namespace).catch(() => {});
});

describe('the nftables ruleset of a host, in the kernel', () => {
  it('is not what closes ports before it is loaded', async () => {
    const open = await Promise.all(cells().map(isOpen));
    expect(open.filter((isIt) => !isIt)).toEqual([]);
  });

  // N-135
  it('lets real sockets through where the flows say so, and nowhere else', async () => {
    const ruleset = emitNftables(firewallOf(firewallModel, 'broker')).document;
    await load(ruleset);
    await load(ruleset); // replaces itself
    // neighbours have to be found again, through the rules for ICMPv6
    for (const { namespace, link } of [HOST, PEER]) await ip('-n', namespace, 'neigh', 'flush', 'dev', link);
    const asked = cells();
    const open = await Promise.all(asked.map(isOpen));
    const wrong = asked.filter((cell, index) => open[index] !== flowsAllow(cell, undefined, false));
    expect(wrong).toEqual([]);
    expect(open.filter((isIt) => isIt).length).toBeGreaterThan(50);
    expect(open.filter((isIt) => !isIt).length).toBeGreaterThan(50);
  });

  it('leaves the loopback alone', async () => {
    const loopback = { op: 'probe', protocol: 'TCP', port: 22, deadlineMs: DEADLINE_MS } as const;
    expect(await host.do({ ...loopback, from: '127.0.0.1', to: '127.0.0.1' })).toBe(true);
    expect(await host.do({ ...loopback, from: '::1', to: '::1' })).toBe(true);
  });
});
