import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import { CliError, usageError } from './failure.ts';

/** A file as part of the joined text. */
export interface Part {
  /** As the user named it, `-` for stdin. */
  readonly path: string;
  /** 1-based line of the joined text where it begins. */
  readonly firstLine: number;
}

/** Several files as one text of documents, which remembers where each came from. */
export interface Manifests {
  readonly text: string;
  readonly parts: readonly Part[];
}

/** A place of a problem as the broker and the agents report it: 1-based, in the joined text. */
export interface Place {
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

const EXTENSIONS = /\.(?:ya?ml|json)$/;
/** Hard limit of the broker; read no more than it could take. */
const MAX_TEXT_BYTES = 64 * 1024 * 1024;

/** Where `readManifests` reads from. */
export interface ManifestSource {
  /** Files, folders (their `.yaml`, `.yml` and `.json` files, by name) or `-`. */
  readonly paths: readonly string[];
  /** Folders with all that is below. */
  readonly recursive: boolean;
  readonly stdin: NodeJS.ReadableStream;
  /** Texts that come before what is read, such as those that were made rather than written. */
  readonly before?: readonly { readonly path: string; readonly text: string }[];
}

/** Reads and joins files. Throws when one cannot be read, when a folder holds none, or beyond 64 MiB. */
export async function readManifests({ paths, recursive, stdin, before = [] }: ManifestSource): Promise<Manifests> {
  if (paths.filter((path) => path === '-').length > 1) throw usageError('-f - can be given once');
  const files = [...before];
  let bytes = 0;
  for (const path of paths) {
    for (const file of path === '-' ? ['-'] : await filesOf(path, recursive)) {
      const text =
        file === '-' ? await readAll(stdin) : await readFile(file, 'utf8').catch((error: unknown) => notRead(file, error));
      bytes += Buffer.byteLength(text);
      if (bytes > MAX_TEXT_BYTES) throw new CliError('payload_too_large', `${file}: more than ${MAX_TEXT_BYTES} bytes in all`);
      files.push({ path: file, text });
    }
  }
  return joinManifests(files);
}

/** Joins texts with lines of `---`; each begins on a line of its own. */
export function joinManifests(files: readonly { readonly path: string; readonly text: string }[]): Manifests {
  const parts: Part[] = [];
  let joined = '';
  let line = 1;
  for (const { path, text } of files) {
    if (joined !== '') {
      joined += '---\n';
      line += 1;
    }
    parts.push({ path, firstLine: line });
    const bare = text.startsWith('\ufeff') && joined !== '' ? text.slice(1) : text;
    const whole = bare === '' || bare.endsWith('\n') || files.length === 1 ? bare : `${bare}\n`;
    joined += whole;
    line += whole.split('\n').length - 1;
  }
  return { text: joined, parts };
}

/** `file:line:column` for a place in the joined text; the file's name alone, or '' without a line in several files. */
export function placeText({ parts }: Manifests, { line, column }: Place): string {
  if (line === undefined) return parts.length === 1 ? (parts[0]?.path ?? '') : '';
  const part = parts.findLast(({ firstLine }) => firstLine <= line);
  if (!part) return `line ${line}`;
  return [part.path, line - part.firstLine + 1, ...(column === undefined ? [] : [column])].join(':');
}

async function filesOf(path: string, recursive: boolean): Promise<string[]> {
  const entry = await stat(path).catch((error: unknown) => notRead(path, error));
  if (!entry.isDirectory()) return [path];
  const names = (await readdir(path, { recursive })).filter((name) => EXTENSIONS.test(name)).sort();
  const files: string[] = [];
  for (const name of names) {
    const file = join(path, name);
    if ((await stat(file)).isFile()) files.push(file);
  }
  if (files.length > 0) return files;
  throw new CliError('no_manifests', `${path} holds no .yaml, .yml or .json file`, {
    hint: recursive ? undefined : 'with -R, folders below are read too',
  });
}

function notRead(path: string, error: unknown): never {
  const { code } = error as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'no such file or directory' : (code ?? String(error));
  throw new CliError('file_not_found', `${path}: ${reason}`, { cause: error });
}
