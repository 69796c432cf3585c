import type { MessageInitShape } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import type { BlobChunkSchema, FetchBlobsRequest } from '#proto/brokkr/v1/sync_pb.js';
import type { Database } from '../database.ts';
import type { BlobStore } from '../stacks/blobs.ts';
import { mayFetch } from './head-store.ts';
import type { Heads } from './heads.ts';

/** A part of a document. */
export type Chunk = MessageInitShape<typeof BlobChunkSchema> & { readonly data: Uint8Array };

/** Largest chunk; an answer holds as many chunks as fit into the same. */
export const CHUNK_BYTES = 256 * 1024;
/** Documents read from the database at once. */
const READ_AHEAD = 64;

/** Serves content to agents: only digests that a generation of theirs lists. */
export class Blobs {
  readonly #db: Database;
  readonly #blobs: BlobStore;
  readonly #heads: Heads;

  constructor({ db, blobs, heads }: { readonly db: Database; readonly blobs: BlobStore; readonly heads: Heads }) {
    this.#db = db;
    this.#blobs = blobs;
    this.#heads = heads;
  }

  /** The parts of the wanted blobs in order, from `offset` of the first. Throws `blob_not_found`. */
  async *chunks(agentId: string, { stackId, generation, digests, offset }: FetchBlobsRequest): AsyncGenerator<Chunk> {
    const allowed = await mayFetch(this.#db, agentId, stackId, generation);
    const head = allowed ? await this.#heads.find(stackId, generation) : undefined;
    const foreign = head && digests.find((digest) => !head.digests.has(hex(digest)));
    if (!head || foreign)
      throw new BrokkrError(
        'blob_not_found',
        `generation ${generation} of stack ${stackId} ${head ? `has no content ${hex(foreign ?? new Uint8Array())}` : 'is not assigned to this agent'}`,
      );
    let from = Number(offset);
    for (let index = 0; index < digests.length; index += READ_AHEAD) {
      const wanted = digests.slice(index, index + READ_AHEAD);
      const texts = await this.#blobs.read(this.#db, wanted);
      for (const digest of wanted) {
        const data = hex(digest) === hex(head.row.manifest_digest) ? head.row.manifest : texts.get(hex(digest));
        if (!data) throw new BrokkrError('blob_not_found', `content ${hex(digest)} is gone`);
        yield* split(digest, data, from);
        from = 0;
      }
    }
  }
}

function* split(digest: Uint8Array, data: Buffer, from: number): Generator<Chunk> {
  if (data.length === 0) yield { digest, offset: 0n, total: 0n, data };
  for (let offset = from; offset < data.length; offset += CHUNK_BYTES) {
    yield { digest, offset: BigInt(offset), total: BigInt(data.length), data: data.subarray(offset, offset + CHUNK_BYTES) };
  }
}

function hex(digest: Uint8Array): string {
  return Buffer.from(digest).toString('hex');
}
