import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { BrokkrError, statusCode } from '#lib/errors.ts';
import { type ErrorBody, errorDetailBytes } from './rpc-errors.ts';

/** Bytes in front of every gRPC message: one flag, four of length (gRPC over HTTP/2, "Length-Prefixed-Message"). */
const HEADER_BYTES = 5;

/** A message with its header, ready for the wire; encode once and write to many streams. */
export function grpcFrame(payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.byteLength);
  frame[0] = 0;
  frame.writeUInt32BE(payload.byteLength, 1);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** Cuts a byte stream into messages. */
export class FrameReader {
  readonly #maxBytes: number;
  #pending: Buffer[] = [];
  #size = 0;

  /** `maxBytes`: largest message. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** True when the stream may end here: no message is incomplete. */
  get empty(): boolean {
    return this.#size === 0;
  }

  /**
   * Takes bytes and hands on every message they complete; stops when `take` returns false. Throws `payload_too_large`
   * before such a message is buffered, and `unimplemented` for compressed messages.
   */
  push(chunk: Buffer, take: (message: Uint8Array) => boolean): void {
    this.#pending.push(chunk);
    this.#size += chunk.byteLength;
    while (this.#size >= HEADER_BYTES) {
      const head = this.#peek(HEADER_BYTES);
      if (head[0] !== 0) throw new BrokkrError('unimplemented', 'compressed messages are not supported on this stream');
      const length = head.readUInt32BE(1);
      if (length > this.#maxBytes) {
        throw new BrokkrError('payload_too_large', `the message has ${length} bytes, at most ${this.#maxBytes} are allowed`, {
          details: { limit_bytes: this.#maxBytes },
        });
      }
      if (this.#size < HEADER_BYTES + length) return;
      const frame = this.#peek(HEADER_BYTES + length);
      this.#drop(HEADER_BYTES + length);
      if (!take(frame.subarray(HEADER_BYTES))) return;
    }
  }

  /** The first `count` bytes in one piece. */
  #peek(count: number): Buffer {
    if ((this.#pending[0]?.byteLength ?? 0) < count) this.#pending = [Buffer.concat(this.#pending)];
    return (this.#pending[0] as Buffer).subarray(0, count);
  }

  #drop(count: number): void {
    this.#size -= count;
    const [first] = this.#pending;
    if (!first) return;
    if (first.byteLength === count) this.#pending.shift();
    else this.#pending[0] = first.subarray(count);
  }
}

/** Longest time a timer can wait, milliseconds; longer deadlines are none. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Milliseconds of a `grpc-timeout` header; undefined when there is none. Throws `invalid_request` when it is malformed. */
export function grpcTimeoutMs(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const match = /^(\d{1,8})([HMSmun])$/.exec(String(header));
  if (!match) throw new BrokkrError('invalid_request', `grpc-timeout is ${header}, expected up to 8 digits and a unit`);
  const ms = Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  return ms > MAX_TIMER_MS ? undefined : ms;
}

const UNIT_MS = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 0.001, n: 0.000_001 } as const;

/** The trailers that end a gRPC call; with our error detail when it failed. */
export function grpcTrailers(error: ErrorBody | undefined): Record<string, string> {
  if (!error) return { 'grpc-status': '0' };
  const code = statusCode(error.code);
  return {
    'grpc-status': String(code),
    'grpc-message': percentEncode(error.message),
    'grpc-status-details-bin': Buffer.from(statusBytes(code, error)).toString('base64').replace(/=+$/, ''),
  };
}

/** `google.rpc.Status`: code = 1, message = 2, details = 3 of `google.protobuf.Any` (type_url = 1, value = 2). */
function statusBytes(code: number, error: ErrorBody): Uint8Array {
  const any = new BinaryWriter()
    .tag(1, 2)
    .string('type.googleapis.com/brokkr.v1.Error')
    .tag(2, 2)
    .bytes(errorDetailBytes(error))
    .finish();
  return new BinaryWriter().tag(1, 0).int32(code).tag(2, 2).string(error.message).tag(3, 2).bytes(any).finish();
}

/** Percent encoding of `grpc-message`: bytes outside printable ASCII, and `%`. */
function percentEncode(text: string): string {
  let encoded = '';
  for (const byte of Buffer.from(text)) {
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}
