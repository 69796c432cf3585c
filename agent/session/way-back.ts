import { hash } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fromBinary, fromJson, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import { manifestDigest } from '#lib/digest.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { isOpaque, type Manifest } from '#lib/object.ts';
import { ApplyOptionsSchema, ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import { RevisionSchema } from '#proto/brokkr/v1/sync_pb.js';
import { readJson, writeJson } from '../data-dir.ts';
import type { StackTarget, WayBack } from '../stack/target.ts';
import { bytes, fromWire, hex, toWire } from './manifest.ts';

/** A way back with its documents by digest. */
export interface KeptWayBack extends WayBack {
  readonly documents: ReadonlyMap<string, string>;
}

/** Ways back in memory, and on disk but for Secrets: one file a stack, replaced at once. */
export class WayBacks {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #kept = new Map<string, KeptWayBack>();

  constructor({ dir, log }: { readonly dir: string; readonly log: Logger }) {
    this.#dir = dir;
    this.#log = log;
  }

  /** What is kept of a stack. */
  find(stackId: string): KeptWayBack | undefined {
    return this.#kept.get(stackId);
  }

  /** Keeps one, in place of an earlier one of its stack. Rejects when the disk cannot be written. */
  async keep(wayBack: KeptWayBack): Promise<void> {
    const { stackId } = wayBack.goal;
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await writeJson(this.#path(stackId), encode(wayBack));
    this.#kept.set(stackId, wayBack);
  }

  /** Drops what is kept of a stack, if anything is. */
  async drop(stackId: string): Promise<void> {
    if (this.#kept.delete(stackId)) await rm(this.#path(stackId), { force: true });
  }

  /** Takes over what an earlier process kept of these stacks, as far as it is whole, and drops the rest. */
  async load(stackIds: ReadonlySet<string>): Promise<readonly WayBack[]> {
    const names = await readdir(this.#dir).catch(() => []);
    for (const name of names) {
      const stackId = name.replace(/\.json$/, '');
      const found = stackIds.has(stackId) ? await this.#read(name) : undefined;
      if (found?.goal.stackId === stackId) this.#kept.set(stackId, found);
      else await rm(join(this.#dir, name), { force: true });
    }
    return [...this.#kept.values()];
  }

  async #read(name: string): Promise<KeptWayBack | undefined> {
    const json = await readJson(join(this.#dir, name));
    try {
      return json && decode(json as unknown as WayBackJson);
    } catch (error) {
      this.#log.warn({ file: name, error: errorText(error) }, 'way back cannot be read');
      return undefined;
    }
  }

  #path(stackId: string): string {
    return join(this.#dir, `${stackId}.json`);
  }
}

interface WayBackJson {
  readonly goal: Omit<StackTarget, Encoded | 'revision'> & Readonly<Record<Encoded, string>> & { readonly revision: JsonValue };
  readonly good: string | null;
  readonly documents: readonly (readonly [digest: string, text: string])[];
}

type Encoded = 'generation' | 'manifest' | 'optionsDigest' | 'options' | 'salt' | 'manifestDigest';

function encode({ goal, good, documents }: KeptWayBack): WayBackJson {
  const secret = new Set([...secretSources(goal.manifest), ...(good ? secretSources(good.manifest) : [])]);
  return {
    goal: {
      ...goal,
      generation: `${goal.generation}`,
      manifest: encodeManifest(goal.manifest),
      manifestDigest: hex(goal.manifestDigest),
      optionsDigest: hex(goal.optionsDigest),
      options: Buffer.from(toBinary(ApplyOptionsSchema, goal.options)).toString('base64'),
      salt: hex(goal.salt),
      revision: goal.revision ? toJson(RevisionSchema, goal.revision) : null,
    },
    good: good ? encodeManifest(good.manifest) : null,
    documents: [...documents].filter(([digest]) => !secret.has(digest)),
  };
}

/** Throws when something is not as it was written. */
function decode({ goal, good, documents }: WayBackJson): KeptWayBack {
  const manifest = decodeManifest(goal.manifest);
  const goodManifest = good === null ? undefined : decodeManifest(good);
  for (const [digest, text] of documents)
    if (hash('sha256', text, 'hex') !== digest) throw new Error(`document ${digest} is damaged`);
  if (hex(manifestDigest(manifest)) !== goal.manifestDigest) throw new Error('the manifest is damaged');
  return {
    goal: {
      ...goal,
      generation: BigInt(goal.generation),
      manifest,
      manifestDigest: bytes(goal.manifestDigest),
      optionsDigest: bytes(goal.optionsDigest),
      options: fromBinary(ApplyOptionsSchema, Buffer.from(goal.options, 'base64')),
      salt: bytes(goal.salt),
      revision: goal.revision === null ? undefined : fromJson(RevisionSchema, goal.revision),
    },
    good: goodManifest && { manifest: goodManifest, manifestDigest: manifestDigest(goodManifest) },
    documents: new Map(documents),
  };
}

function encodeManifest(manifest: Manifest): string {
  return Buffer.from(toBinary(ManifestSchema, toWire(manifest))).toString('base64');
}

function decodeManifest(text: string): Manifest {
  return fromWire(fromBinary(ManifestSchema, Buffer.from(text, 'base64')));
}

/** Sources that hold a Secret; nothing is known about an opaque text. */
function secretSources(manifest: Manifest): readonly string[] {
  if (isOpaque(manifest)) return [manifest.opaqueSourceDigest];
  return manifest.filter(({ kind }) => kind === 'Secret').map(({ sourceDigest }) => sourceDigest);
}
