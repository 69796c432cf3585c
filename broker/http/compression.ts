import { promisify } from 'node:util';
import { zstdCompress, zstdDecompress } from 'node:zlib';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Compression } from '@connectrpc/connect/protocol';
import { compressionBrotli, compressionGzip } from '@connectrpc/connect-node';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

const compressionZstd: Compression = {
  name: 'zstd',
  compress: (bytes) => compress(bytes),
  async decompress(bytes, readMaxBytes) {
    if (bytes.length === 0) return new Uint8Array(0);
    try {
      return await decompress(bytes, { maxOutputLength: readMaxBytes });
    } catch (error) {
      const tooLarge = (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE';
      throw tooLarge
        ? new ConnectError(
            `message is larger than configured readMaxBytes ${readMaxBytes} after decompression`,
            Code.ResourceExhausted,
          )
        : new ConnectError('decompression failed', Code.InvalidArgument, undefined, undefined, error);
    }
  },
};

/** What the port understands and may answer with, best first for peers that accept several. */
export const COMPRESSIONS: readonly Compression[] = [compressionGzip, compressionBrotli, compressionZstd];
