import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { must } from '../process.ts';
import type { ImageConfig } from './stages.ts';

/** What an image is made of. */
export interface LayoutOptions {
  readonly rootfs: string;
  readonly config: ImageConfig;
  readonly arch: 'amd64' | 'arm64';
  /** Time of every file, in seconds since 1970: the same content gives the same digest. */
  readonly epoch: number;
  /** Name under which tools list the image. */
  readonly tag: string;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/**
 * Writes an OCI image layout of one layer as the tar file `target` (https://github.com/opencontainers/image-spec, v1.1), which
 * podman, skopeo and containerd load as it is. Returns the digest of the manifest.
 */
export async function writeLayout(target: string, { rootfs, config, arch, epoch, tag }: LayoutOptions): Promise<string> {
  const dir = await mkdtemp(`${target}.`);
  const blobs = join(dir, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const text = async (mediaType: string, value: unknown) => await addText(blobs, mediaType, JSON.stringify(value));
  const layer = await addLayer(dir, blobs, rootfs, epoch);
  const created = new Date(epoch * 1000).toISOString();
  const rootFs = { type: 'layers', diff_ids: [layer.diffId] };
  const history = [{ created, created_by: 'hack/image' }];
  const image = { created, architecture: arch, os: 'linux', config, rootfs: rootFs, history };
  const manifest = await text('application/vnd.oci.image.manifest.v1+json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: await text('application/vnd.oci.image.config.v1+json', image),
    layers: [layer.descriptor],
  });
  const named = { ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } };
  await writeFile(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }));
  await writeFile(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await pack(dir, target, epoch);
  await rm(dir, { recursive: true });
  return manifest.digest;
}

async function addText(blobs: string, mediaType: string, text: string): Promise<Descriptor> {
  const digest = createHash('sha256').update(text).digest('hex');
  await writeFile(join(blobs, digest), text);
  return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(text) };
}

async function addLayer(dir: string, blobs: string, rootfs: string, epoch: number) {
  const plain = join(dir, 'layer.tar');
  await pack(rootfs, plain, epoch);
  const [inner, outer] = [createHash('sha256'), createHash('sha256')];
  const draft = join(dir, 'layer.tar.gz');
  await pipeline(createReadStream(plain), through(inner), createGzip(), through(outer), createWriteStream(draft));
  await rm(plain);
  const digest = outer.digest('hex');
  await rename(draft, join(blobs, digest));
  const { size } = await stat(join(blobs, digest));
  const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: `sha256:${digest}`, size };
  return { descriptor, diffId: `sha256:${inner.digest('hex')}` };
}

function through(hash: ReturnType<typeof createHash>): Transform {
  return new Transform({
    transform(chunk, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
}

/** The same bytes for the same files: sorted, with one time, and nothing of this machine. */
async function pack(dir: string, target: string, epoch: number): Promise<void> {
  const same = ['--sort=name', `--mtime=@${epoch}`, '--numeric-owner', '--format=posix'];
  const times = '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime';
  await must('tar', ['-C', dir, ...same, times, '--exclude=./layer.tar', '--exclude=./dev/*', '-cf', target, '.']);
}
