import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Timeouts } from './timeouts.ts';

/** What a client of HTTP/2 says first (RFC 9113, 3.4). */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** First byte of a TLS connection: a handshake record (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 0x16;

/** What a connection speaks. */
export type Spoken = 'http1' | 'http2' | 'tls';

/**
 * Reads the first bytes of a connection until they decide, puts them back and calls `decided` once. Undecided connections
 * are destroyed after `timeoutMs`, whatever they send meanwhile. `expectTls`: one byte decides between TLS and anything else.
 */
export function sniff(
  socket: Socket | TLSSocket,
  options: { readonly expectTls: boolean; readonly timeouts: Timeouts; readonly timeoutMs: number },
  decided: (spoken: Spoken) => void,
): void {
  let seen: Buffer = Buffer.alloc(0);
  const onReadable = () => {
    for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null)
      seen = Buffer.concat([seen, chunk]);
    const spoken = judge(seen, options.expectTls);
    if (!spoken) return; // putting the bytes back now would announce them again, for ever
    stop();
    socket.unshift(seen);
    decided(spoken);
  };
  const onGone = () => {
    stop();
    socket.destroy();
  };
  const stop = () => {
    socket.off('readable', onReadable).off('error', onGone).off('end', onGone).off('close', onGone);
    cancel();
  };
  const cancel = options.timeouts.add(options.timeoutMs, onGone);
  socket.on('readable', onReadable).on('error', onGone).on('end', onGone).on('close', onGone);
}

function judge(seen: Buffer, expectTls: boolean): Spoken | undefined {
  if (seen.byteLength === 0) return undefined;
  if (seen[0] === TLS_HANDSHAKE) return 'tls';
  if (expectTls) return 'http1';
  const length = Math.min(seen.byteLength, PREFACE.byteLength);
  if (!seen.subarray(0, length).equals(PREFACE.subarray(0, length))) return 'http1';
  return length === PREFACE.byteLength ? 'http2' : undefined;
}
