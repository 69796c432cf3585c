import { CliError } from './failure.ts';

/** Flag of the last envelope of a Connect stream, which holds trailers and the error (Connect protocol, "Streaming"). */
export const END_STREAM = 0b10;

/** One message of a Connect stream. */
export interface Envelope {
  readonly flags: number;
  readonly text: string;
}

/** No message the CLI asks for is larger: 10,000 agents with messages of 1 KiB. */
const MAX_ENVELOPE_BYTES = 64 * 1024 * 1024;
const HEADER_BYTES = 5;

/** A message in its envelope: one byte of flags, four of length, the text. */
export function sealed(flags: number, text: string): Uint8Array<ArrayBuffer> {
  const length = Buffer.byteLength(text);
  const bytes = Buffer.alloc(HEADER_BYTES + length);
  bytes.writeUInt8(flags, 0);
  bytes.writeUInt32BE(length, 1);
  bytes.write(text, HEADER_BYTES);
  return bytes;
}

/** Cuts a body into envelopes. Throws when one is too large or the body ends within one. */
export async function* envelopes(body: AsyncIterable<Uint8Array>): AsyncGenerator<Envelope> {
  let chunks: Uint8Array[] = [];
  let held = 0;
  let wanted = HEADER_BYTES;
  for await (const chunk of body) {
    chunks.push(chunk);
    held += chunk.length;
    if (held < wanted) continue;
    let bytes = Buffer.concat(chunks);
    for (;;) {
      wanted = bytes.length < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + bytes.readUInt32BE(1);
      if (wanted > MAX_ENVELOPE_BYTES) throw new CliError('not_a_broker', `the broker sent a message of ${wanted} bytes`);
      if (bytes.length < wanted) break;
      yield { flags: bytes.readUInt8(0), text: bytes.toString('utf8', HEADER_BYTES, wanted) };
      bytes = bytes.subarray(wanted);
    }
    chunks = [bytes];
    held = bytes.length;
  }
  if (held > 0) throw new CliError('unreachable', 'the stream of the broker broke off');
}
