import type { Compression } from '@connectrpc/connect/protocol';
import { BrokkrError } from '#lib/errors.ts';
import type { IncomingRequest } from '#lib/listener.ts';
import { COMPRESSIONS } from './compression.ts';

/** Types that carry the text of a deployment object as it is. */
export const YAML_TYPES: readonly string[] = ['application/yaml', 'text/yaml', 'application/x-yaml'];

/** How much of an upload over the limit is read and thrown away so that an HTTP/1.1 client gets to read the answer. */
const DISCARD_BYTES = 16 * 1024 * 1024;

/**
 * The body of a request, decompressed. Throws `payload_too_large` (with `details.limit_bytes`) above `maxBytes`, counted
 * after decompression, and `unsupported_content_type` for an encoding we do not know.
 */
export async function readBody(request: IncomingRequest, maxBytes: number): Promise<Uint8Array> {
  const encoding = compressionOf(request.headers['content-encoding']);
  const declared = Number(request.headers['content-length'] ?? 0);
  const hopeless = declared > maxBytes + DISCARD_BYTES || (declared > maxBytes && request.httpVersionMajor > 1);
  if (hopeless) throw tooLarge(maxBytes);
  const bytes = await collect(request, maxBytes, request.httpVersionMajor > 1 ? 0 : DISCARD_BYTES);
  if (!encoding || bytes.byteLength === 0) return bytes;
  try {
    return await encoding.decompress(bytes, maxBytes);
  } catch (error) {
    if (error instanceof Error && error.message.includes('larger than')) throw tooLarge(maxBytes);
    throw new BrokkrError('invalid_request_body', `the body is not ${encoding.name}`, { cause: error });
  }
}

/** Reads to the end; what exceeds `maxBytes` is thrown away, and after `discardBytes` of that reading stops. */
function collect(request: IncomingRequest, maxBytes: number, discardBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let size = 0;
    const settle = (outcome: () => void) => {
      request.off('data', onData).off('end', onEnd).off('error', onLost).off('close', onLost);
      outcome();
    };
    const onData = (chunk: Uint8Array) => {
      size += chunk.byteLength;
      if (size <= maxBytes) chunks.push(chunk);
      else {
        chunks.length = 0;
        if (size > maxBytes + discardBytes) settle(() => reject(tooLarge(maxBytes)));
      }
    };
    const onEnd = () =>
      settle(() => {
        if (size > maxBytes) reject(tooLarge(maxBytes));
        else resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks, size));
      });
    const onLost = () => settle(() => reject(new BrokkrError('canceled', 'the client hung up before its request was complete')));
    request.on('data', onData).on('end', onEnd).on('error', onLost).on('close', onLost);
  });
}

/** The body as text. Throws `invalid_request_body` when it is not UTF-8. */
export function decodeText(bytes: Uint8Array, keepByteOrderMark: boolean): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: keepByteOrderMark }).decode(bytes);
  } catch (error) {
    throw new BrokkrError('invalid_request_body', 'the body is not UTF-8', { cause: error });
  }
}

/** The media type of a header, in lower case and without parameters. */
export function mediaType(header: string | undefined): string {
  return (header ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

function compressionOf(header: string | string[] | undefined): Compression | undefined {
  const name = String(header ?? 'identity')
    .trim()
    .toLowerCase();
  if (name === 'identity' || name === '') return undefined;
  const found = COMPRESSIONS.find((candidate) => candidate.name === name);
  if (found) return found;
  const known = COMPRESSIONS.map((candidate) => candidate.name).join(', ');
  throw new BrokkrError('unsupported_content_type', `content-encoding is ${name}, supported are ${known}`);
}

function tooLarge(maxBytes: number): BrokkrError {
  return new BrokkrError('payload_too_large', `the body is larger than ${maxBytes} bytes`, {
    details: { limit_bytes: maxBytes },
  });
}
