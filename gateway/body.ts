import { constants } from 'node:http2';
import type { Readable, Writable } from 'node:stream';

/** Whether a body that has ended came whole: a reset HTTP/2 stream ends like any other, it only has a code. */
export function isWhole(body: Readable): boolean {
  return !('rstCode' in body) || body.rstCode === constants.NGHTTP2_NO_ERROR;
}

/**
 * Sends the body of a request on. One that breaks off leaves `sink` open, for its end would make half a body a whole one; who
 * watches the client breaks `sink` off.
 */
export function sendBody(body: Readable, sink: Writable): void {
  body.pipe(sink, { end: false });
  body.once('end', () => {
    if (isWhole(body)) sink.end();
  });
  sink.once('close', () => body.unpipe(sink).resume());
}
