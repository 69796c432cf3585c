import { hash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';

/** Documents on disk (the design's table of limits). */
const MAX_BYTES = 256 * 1024 * 1024;

/** Documents by digest in a directory, the least recently used dropped first. May be lost; a failing disk only makes it useless. */
export interface ContentCache {
  /** Whether the document is there. */
  has(digest: string): boolean;
  /** The document, if it is there and whole. */
  read(digest: string): Promise<string | undefined>;
  /** Keeps a document. Never call it with a Secret. */
  write(digest: string, text: string): Promise<void>;
}

/** Opens the cache; files of an earlier process count, oldest first. */
export async function openContentCache(
  dir: string,
  { log }: { readonly log: Logger },
  { maxBytes = MAX_BYTES }: { readonly maxBytes?: number } = {},
): Promise<ContentCache> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const sizes = await scan(dir);
  let total = [...sizes.values()].reduce((sum, size) => sum + size, 0);

  const drop = async (digest: string) => {
    total -= sizes.get(digest) ?? 0;
    sizes.delete(digest);
    await rm(join(dir, digest), { force: true });
  };
  return {
    has: (digest) => sizes.has(digest),
    async read(digest) {
      const size = sizes.get(digest);
      if (size === undefined) return undefined;
      const text = await readFile(join(dir, digest), 'utf8').catch(() => undefined);
      if (text === undefined || hash('sha256', text, 'hex') !== digest) {
        await drop(digest);
        return undefined;
      }
      sizes.delete(digest);
      sizes.set(digest, size); // now the most recently used
      return text;
    },
    async write(digest, text) {
      if (sizes.has(digest)) return;
      const size = Buffer.byteLength(text);
      if (size > maxBytes) return;
      try {
        await writeFile(join(dir, digest), text, { mode: 0o600 }); // a torn file does not match its name when it is read
        sizes.set(digest, size);
        total += size;
        for (const oldest of sizes.keys()) {
          if (total <= maxBytes) break;
          await drop(oldest);
        }
      } catch (error) {
        log.warn({ error: errorText(error) }, 'content cache cannot be written');
      }
    },
  };
}

async function scan(dir: string): Promise<Map<string, number>> {
  const files: { readonly name: string; readonly size: number; readonly usedAt: number }[] = [];
  for (const name of await readdir(dir)) {
    if (!/^[0-9a-f]{64}$/.test(name)) {
      await rm(join(dir, name), { force: true, recursive: true });
      continue;
    }
    const { size, mtimeMs } = await stat(join(dir, name));
    files.push({ name, size, usedAt: mtimeMs });
  }
  files.sort((a, b) => a.usedAt - b.usedAt);
  return new Map(files.map(({ name, size }) => [name, size]));
}
