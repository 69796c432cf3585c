import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { connect, isIP, type NetConnectOpts, type Socket } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { type PeerCertificate, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { trustedAuthorities } from './authorities.ts';
import { type CheckDeps, type CheckReport, runCheck, type Step } from './check.ts';
import { TimeoutError } from './clock.ts';
import { errorText } from './errors.ts';
import { certificateProblem, ReachError } from './reach-failure.ts';

/** Addresses of one name that are tried, one after the other. */
const MAX_ADDRESSES = 4;
/** Bytes of an answer that are shown. */
const SHOWN_BYTES = 200;

/** Where to connect to. */
export interface CheckedPort {
  /** Name or address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

/** Whether a TCP connection can be made. */
export async function checkTcp(target: CheckedPort, deps: CheckDeps, signal: AbortSignal): Promise<CheckReport> {
  const work = async (step: Step) => {
    const { socket } = await openConnection(target, step);
    socket.destroy();
  };
  return await runCheck({ check: 'tcp', target: hostPort(target) }, work, deps, signal);
}

/** Whether a URL answers with a status below 400. Dials directly; follows no redirect. `caFile`: trusted besides the system's authorities. */
export async function checkHttp(
  url: URL,
  { caFile }: { readonly caFile: string | undefined },
  deps: CheckDeps,
  signal: AbortSignal,
): Promise<CheckReport> {
  const target = portOf(url);
  const work = async (step: Step) => {
    const { socket: plain } = await openConnection(target, step);
    let socket: Socket = plain;
    try {
      if (url.protocol === 'https:') socket = await secure(plain, target.host, await readAuthorities(caFile), step);
      await step(
        `GET ${url.pathname}${url.search}`,
        (inner) => get(socket, url, inner),
        ({ status, text }) => `HTTP ${status}${text && `: ${text}`}`,
      );
    } finally {
      socket.destroy();
      plain.destroy();
    }
  };
  return await runCheck({ check: 'http', target: url.href }, work, deps, signal);
}

async function readAuthorities(caFile: string | undefined): Promise<readonly string[]> {
  try {
    return await trustedAuthorities(caFile);
  } catch (error) {
    throw new ReachError('configuration', errorText(error), { cause: error });
  }
}

/** The port a URL means. */
export function portOf(url: URL): CheckedPort {
  const standard: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443, 'socks5:': 1080 };
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port) || (standard[url.protocol] ?? 0) };
}

/** The addresses of a host as connections find them (getaddrinfo); an address is its own. */
export async function resolveHost(host: string, step: Step): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    const found = await step(
      `resolve ${host}`,
      async () => (await lookup(host, { all: true })).map(({ address }) => address),
      (addresses) => addresses.join(', '),
    );
    return found.slice(0, MAX_ADDRESSES);
  } catch (error) {
    if (error instanceof TimeoutError) throw new ReachError('dns', `no answer about ${host}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Resolves and connects. When no address works it rejects with the failure of the first. The caller destroys the socket. */
export async function openConnection({ host, port }: CheckedPort, step: Step): Promise<{ readonly socket: Socket }> {
  let failure: unknown;
  for (const address of await resolveHost(host, step)) {
    try {
      const dial = (signal: AbortSignal) => dialSocket({ host: address, port }, signal);
      return { socket: await step(`connect to ${hostPort({ host: address, port })}`, dial, () => '') };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/** Connects to one address or Unix socket; rejects with the error of the socket. An error after that only closes the socket. */
export async function dialSocket(options: NetConnectOpts, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  const socket = connect(options);
  try {
    await once(socket, 'connect', { signal });
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return socket.on('error', () => undefined); // whoever uses it hears of its end
}

/** Makes the handshake and judges the certificate: unlike a failed handshake alone, this can say whose it is and how long it is valid. */
export async function secure(socket: Socket, host: string, ca: readonly string[], step: Step): Promise<TLSSocket> {
  const work = async (signal: AbortSignal) => {
    const tls = tlsConnect({
      socket,
      host,
      ca: [...ca],
      rejectUnauthorized: false,
      ...(isIP(host) === 0 && { servername: host }),
    });
    try {
      await once(tls, 'secureConnect', { signal });
      if (!tls.authorized) throw distrust(tls);
    } catch (error) {
      tls.destroy();
      throw error;
    }
    return tls.on('error', () => undefined);
  };
  return await step(`TLS as ${host}`, work, (tls) => `${tls.getProtocol()}, ${certificateText(tls.getPeerCertificate())}`);
}

function distrust(tls: TLSSocket): ReachError {
  const code = String(tls.authorizationError);
  const { problem, next } = certificateProblem(code) ?? { problem: `is not accepted: ${code}`, next: undefined };
  return new ReachError(
    'certificate',
    `the certificate ${problem} (${certificateText(tls.getPeerCertificate())})`,
    next === undefined ? {} : { next },
  );
}

function certificateText({ subject, issuer, valid_from, valid_to, subjectaltname }: PeerCertificate): string {
  const name = (of: PeerCertificate['subject'] | undefined) => String(of?.CN ?? of?.O ?? '?');
  const hosts = subjectaltname ?? name(subject);
  return `for ${hosts.slice(0, SHOWN_BYTES)}, signed by ${name(issuer)}, valid from ${valid_from} to ${valid_to}`;
}

async function get(socket: Socket, url: URL, signal: AbortSignal): Promise<{ readonly status: number; readonly text: string }> {
  const headers = { host: url.host, 'user-agent': 'brokkr-check', connection: 'close' };
  const path = `${url.pathname}${url.search}`;
  const asked = request({ createConnection: () => socket, method: 'GET', path, headers, signal });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  asked.on('error', () => undefined); // the reader below says it
  const { statusCode: status = 0 } = response;
  const text = await firstText(response, signal);
  if (status === 401) throw new ReachError('authentication', `HTTP ${status}: ${text}`);
  if (status === 403) throw new ReachError('forbidden', `HTTP ${status}: ${text}`);
  if (status >= 400) throw new ReachError('status', `HTTP ${status}: ${text}`);
  return { status, text };
}

async function firstText(body: IncomingMessage, signal: AbortSignal): Promise<string> {
  let text = '';
  for await (const chunk of addAbortSignal(signal, body.setEncoding('utf8'))) {
    text += String(chunk);
    if (text.length > SHOWN_BYTES) break;
  }
  return text.slice(0, SHOWN_BYTES).trim().replaceAll(/\s+/g, ' ');
}

function hostPort({ host, port }: CheckedPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
