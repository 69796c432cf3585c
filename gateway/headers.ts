import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';

/** What concerns one connection only (RFC 9110, 7.6.1; RFC 9113, 8.2.2); `expect` was answered by the port. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
]);

/** What a client could use to pass for somebody else: the gateway is the first that can be believed. */
const FORWARDED: ReadonlySet<string> = new Set([
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
]);

/** The headers that go on to the other side: none of one connection only, and none that `connection` names. */
export function endToEnd(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  const kept: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(':') && !HOP_BY_HOP.has(name) && !named.has(name)) kept[name] = value;
  }
  return kept;
}

/** The headers of a request as an upstream gets them: who asked, for which host, and that it was over TLS. */
export function upstreamHeaders(
  headers: IncomingHttpHeaders,
  { client, host }: { readonly client: string | undefined; readonly host: string },
): OutgoingHttpHeaders {
  const kept = endToEnd(headers);
  delete kept.host;
  for (const name of FORWARDED) delete kept[name];
  return {
    ...kept,
    ...(headers.te?.includes('trailers') && { te: 'trailers' }), // gRPC servers insist on it
    'x-forwarded-for': client ?? 'unknown',
    'x-forwarded-host': host,
    'x-forwarded-proto': 'https',
  };
}
