import { BrokkrError } from '#lib/errors.ts';
import type { Question } from './exchange.ts';

/** What a host with a port is made of (RFC 3986, 3.2.2), addresses of IPv6 included; empty where a client of HTTP/1.0 names none. */
const HOST = /^[\w.~!$&'()*+,;=%:[\]-]*$/;

/** Where requests go by their first line: to a path, or, asked for what it can do, to the server as a whole (RFC 9112, 3.2). */
const TARGET = /^(\/|\*$)/;

/**
 * Throws a `BrokkrError` for a request that another server could read in another way than we do, and for one that is not for a
 * reverse proxy. What is no HTTP at all was refused before.
 */
export function checkRequest({ method, target, host, headers }: Question): void {
  if (method === 'CONNECT') throw new BrokkrError('unimplemented', 'this is no proxy to connect through');
  // any other coding would be lost on the way: transfer codings end with the connection (RFC 9112, 6.1)
  const coding = headers['transfer-encoding'];
  if (coding !== undefined && coding.toLowerCase() !== 'chunked')
    throw new BrokkrError('unimplemented', 'the only transfer coding of requests is chunked');
  if (!HOST.test(host))
    throw new BrokkrError('invalid_request', 'there has to be one host, and it has to be a name or an address');
  if (!TARGET.test(target)) throw new BrokkrError('invalid_request', 'the path does not begin with /');
}
