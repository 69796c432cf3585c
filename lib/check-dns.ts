import { createSocket } from 'node:dgram';
import { readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { type CheckDeps, type CheckReport, runCheck, type Step } from './check.ts';
import { type CheckedPort, dialSocket, resolveHost } from './check-network.ts';
import type { Clock } from './clock.ts';
import { type DnsAnswer, decodeAnswer, encodeQuestion } from './dns-message.ts';
import { ReachError } from './reach-failure.ts';
import { abortable } from './signal.ts';

const RESOLV_CONF = '/etc/resolv.conf';
/** A datagram may be lost. */
const RESEND_MS = 1_000;
/** Servers that glibc asks (resolv.conf(5), MAXNS). */
const MAX_SERVERS = 3;
const QUESTION_ID = 0x6272;

type Ask = (server: CheckedPort, question: Buffer, signal: AbortSignal) => Promise<Buffer>;

/**
 * Whether a name resolves as connections resolve it, and whether each DNS server of this machine answers over UDP and over TCP, which large
 * answers need. With `server` that one is asked instead, and the name must exist there.
 */
export async function checkDns(
  name: string,
  { server }: { readonly server: CheckedPort | undefined },
  deps: CheckDeps,
  signal: AbortSignal,
): Promise<CheckReport> {
  const work = async (step: Step) => {
    const config = await readResolvConf(signal);
    const failures: unknown[] = [];
    const noted = <T>(promise: Promise<T>) => promise.catch((error: unknown) => void failures.push(error));
    if (server === undefined) await noted(resolveHost(name, step));
    const names = server === undefined ? candidates(name, config) : [name];
    for (const each of server === undefined ? config.servers : [server]) {
      const ask = (protocol: string, by: Ask) =>
        step(
          `ask ${each.host} port ${each.port} over ${protocol}`,
          (inner) => askForAddresses(names, (question) => by(each, question, inner)),
          (answer) => answer.addresses.join(', ') || answer.result,
        );
      const answers = [await noted(ask('UDP', overUdp(deps.clock))), await noted(ask('TCP', overTcp))];
      const isUnknown = answers.every((answer) => answer?.addresses.length === 0);
      if (server !== undefined && isUnknown) failures.push(new ReachError('nxdomain', `the server knows no address of ${name}`));
    }
    if (failures.length > 0) throw failures[0];
  };
  return await runCheck({ check: 'dns', target: name }, work, deps, signal);
}

/** Asks for each name until one has addresses; answers that mean trouble of the server are failures. */
async function askForAddresses(names: readonly string[], ask: (question: Buffer) => Promise<Buffer>): Promise<DnsAnswer> {
  let last: DnsAnswer = { result: 'NXDOMAIN', addresses: [] };
  for (const name of names) {
    for (const type of ['A', 'AAAA'] as const) {
      last = decodeAnswer(await ask(encodeQuestion(QUESTION_ID, name, type)));
      if (last.addresses.length > 0) return last;
      if (last.result === 'NXDOMAIN') break;
      if (last.result !== 'NOERROR') throw new ReachError('dns', `the server answers ${last.result} about ${name}`);
    }
  }
  return last;
}

function overUdp(clock: Clock): Ask {
  return async ({ host, port }, question, signal) => {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    const answer = Promise.withResolvers<Buffer>();
    const stop = new AbortController();
    const send = async () => {
      for (;;) {
        socket.send(question);
        await clock.sleep(RESEND_MS, stop.signal);
      }
    };
    socket.on('error', answer.reject); // a port that nobody listens at is told by the next send
    socket.on('message', (message) => answer.resolve(message));
    socket.connect(port, host, () => void send().catch(() => undefined)); // ends when it is stopped
    try {
      return await abortable(answer.promise, signal);
    } finally {
      stop.abort();
      socket.close();
    }
  };
}

/** Messages over TCP come after their length (RFC 1035 §4.2.2). */
const overTcp: Ask = async ({ host, port }, question, signal) => {
  const socket = await dialSocket({ host, port }, signal);
  try {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length);
    socket.write(Buffer.concat([length, question]));
    let got = Buffer.alloc(0);
    for await (const chunk of addAbortSignal(signal, socket)) {
      got = Buffer.concat([got, chunk as Buffer]);
      if (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) return got.subarray(2);
    }
  } finally {
    socket.destroy();
  }
  throw new ReachError('reset', 'the server closed the connection without an answer');
};

interface ResolvConf {
  readonly servers: readonly CheckedPort[];
  readonly search: readonly string[];
  /** A name with fewer dots is looked for in the search domains first. */
  readonly ndots: number;
}

/** What names are resolved with (resolv.conf(5)). Nothing where the file is missing, as on Windows. */
async function readResolvConf(signal: AbortSignal): Promise<ResolvConf> {
  const text = await readFile(RESOLV_CONF, { encoding: 'utf8', signal }).catch(() => '');
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/));
  const values = (key: string) => lines.filter(([first]) => first === key).map((words) => words.slice(1));
  const servers = values('nameserver').flatMap(([host]) => (host === undefined ? [] : [{ host, port: 53 }]));
  const ndots = values('options')
    .flat()
    .find((option) => option.startsWith('ndots:'));
  return { servers: servers.slice(0, MAX_SERVERS), search: values('search').at(-1) ?? [], ndots: Number(ndots?.slice(6) ?? 1) };
}

function candidates(name: string, { search, ndots }: ResolvConf): readonly string[] {
  if (name.endsWith('.')) return [name];
  const searched = search.map((domain) => `${name}.${domain}`);
  return name.split('.').length - 1 >= ndots ? [name, ...searched] : [...searched, name];
}
