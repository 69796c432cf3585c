import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#lib/clock.ts';
import { kubeError } from './errors.ts';
import { groupVersionPath } from './resource.ts';
import { header, type KubeTransport } from './transport.ts';

/** The index of documents older than this is asked for again. */
const MAX_AGE_MS = 10 * 60_000;
/** Name of a cached document: a hash in hexadecimal. Other files in the directory are left alone. */
const CACHED = /^[0-9a-f]{64}\.json$/;

/** The OpenAPI v3 document of a group-version, on disk. Same hash, same content, for ever. */
export interface OpenApiDocument {
  readonly path: string;
  readonly hash: string;
}

interface Index {
  readonly loadedAt: number;
  /** Path with the server's content hash, by `api/v1` or `apis/apps/v1`. */
  readonly urls: ReadonlyMap<string, string>;
}

/**
 * The server's schemas, one document a group-version, kept on disk by content hash (they are 0.1 to 1 MB each and never needed
 * in this thread). What the server no longer serves is removed when the index is first read.
 */
export class OpenApi {
  readonly #transport: KubeTransport;
  readonly #clock: Clock;
  readonly #directory: string;
  #index: Index | undefined;

  /** `directory` belongs to one cluster. It is created when first used. */
  constructor({ transport, clock }: { readonly transport: KubeTransport; readonly clock: Clock }, directory: string) {
    this.#transport = transport;
    this.#clock = clock;
    this.#directory = directory;
  }

  /** Forget the index: a CRD changed. */
  invalidate(): void {
    this.#index = undefined;
  }

  /**
   * The document of a group-version; undefined when the server publishes none (before 1.24, or an aggregated API that is down).
   * Rejects when the server or the disk fails.
   */
  async document(group: string, version: string, signal: AbortSignal): Promise<OpenApiDocument | undefined> {
    const { urls } = await this.#current(signal);
    const url = urls.get(groupVersionPath(group, version).slice(1));
    if (url === undefined) return undefined;
    const hash = hashOf(url);
    const path = join(this.#directory, `${hash}.json`);
    if (await exists(path)) return { path, hash };
    const { status, headers, body } = await this.#transport.request('GET', url, { verb: 'openapi' }, signal);
    if (status === 404) return undefined;
    if (status !== 200) throw kubeError(status, body, header(headers, 'retry-after'));
    // Two callers may write the same content; the rename makes either one whole.
    const partial = `${path}.${createHash('sha256').update(`${url}${this.#clock.monotonic()}`).digest('hex').slice(0, 8)}.tmp`;
    await writeFile(partial, body, { signal });
    await rename(partial, path);
    return { path, hash };
  }

  async #current(signal: AbortSignal): Promise<Index> {
    const now = this.#clock.monotonic();
    if (this.#index && now - this.#index.loadedAt < MAX_AGE_MS) return this.#index;
    const first = this.#index === undefined;
    const { status, headers, body } = await this.#transport.request('GET', '/openapi/v3', { verb: 'openapi' }, signal);
    if (status !== 200 && status !== 404) throw kubeError(status, body, header(headers, 'retry-after'));
    const paths: Record<string, { readonly serverRelativeURL: string }> = status === 404 ? {} : JSON.parse(body).paths;
    this.#index = {
      loadedAt: now,
      urls: new Map(Object.entries(paths).map(([name, { serverRelativeURL }]) => [name, serverRelativeURL])),
    };
    await mkdir(this.#directory, { recursive: true });
    if (first) await this.#prune(this.#index);
    return this.#index;
  }

  async #prune({ urls }: Index): Promise<void> {
    const wanted = new Set([...urls.values()].map((url) => `${hashOf(url)}.json`));
    for (const name of await readdir(this.#directory)) {
      if (CACHED.test(name) && !wanted.has(name)) await rm(join(this.#directory, name), { force: true });
    }
  }
}

/** The URL holds group, version and the server's hash of the content. */
function hashOf(url: string): string {
  return createHash('sha256').update(url).digest('hex');
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
