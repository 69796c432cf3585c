import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CliError } from './failure.ts';
import { joinManifests, placeText, readManifests } from './manifests.ts';
import { problemLine, withPlaces } from './problems.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-cli-'));
});
afterEach(() => rm(dir, { recursive: true }));

const read = (paths: string[], recursive = false, stdin = '') =>
  readManifests({ paths, recursive, stdin: Readable.from([stdin]) as NodeJS.ReadableStream });

describe('readManifests', () => {
  it('joins the files of a folder by name, with a separator between them', async () => {
    await writeFile(join(dir, 'b.yml'), 'b: 1');
    await writeFile(join(dir, 'a.yaml'), 'a: 1\n');
    await writeFile(join(dir, 'c.json'), '{"c": 1}\n');
    await writeFile(join(dir, 'README.md'), 'not YAML');
    expect((await read([dir])).text).toBe('a: 1\n---\nb: 1\n---\n{"c": 1}\n');
  });

  it('leaves the text of a single file as it is', async () => {
    await writeFile(join(dir, 'a.yaml'), '\ufeffa: 1');
    expect((await read([join(dir, 'a.yaml')])).text).toBe('\ufeffa: 1');
  });

  it('reads folders below only when asked', async () => {
    await mkdir(join(dir, 'below'));
    await writeFile(join(dir, 'below', 'a.yaml'), 'a: 1\n');
    await expect(read([dir])).rejects.toMatchObject({ code: 'no_manifests', hint: expect.stringContaining('-R') });
    expect((await read([dir], true)).text).toBe('a: 1\n');
  });

  it('reads stdin as -, once', async () => {
    expect((await read(['-'], false, 'a: 1\n')).text).toBe('a: 1\n');
    await expect(read(['-', '-'])).rejects.toMatchObject({ exitCode: 2 });
  });

  it('names the file that is missing', async () => {
    await expect(read([join(dir, 'gone.yaml')])).rejects.toThrow('gone.yaml: no such file or directory');
  });
});

describe('placeText', () => {
  const manifests = joinManifests([
    { path: 'a.yaml', text: 'one\ntwo\n' },
    { path: 'b.yaml', text: '---\nfour\nfive' },
    { path: 'c.yaml', text: 'last\n' },
  ]);

  it('finds every line of the joined text in its file', () => {
    const found = manifests.text.split('\n').map((text, index) => [text, placeText(manifests, { line: index + 1 })]);
    expect(found).toContainEqual(['one', 'a.yaml:1']);
    expect(found).toContainEqual(['two', 'a.yaml:2']);
    expect(found).toContainEqual(['four', 'b.yaml:2']);
    expect(found).toContainEqual(['five', 'b.yaml:3']);
    expect(found).toContainEqual(['last', 'c.yaml:1']);
  });

  it('keeps the column and the byte order mark of a later file out of the text', () => {
    expect(placeText(manifests, { line: 2, column: 7 })).toBe('a.yaml:2:7');
    expect(
      joinManifests([
        { path: 'a', text: 'a\n' },
        { path: 'b', text: '\ufeffb\n' },
      ]).text,
    ).toBe('a\n---\nb\n');
  });

  it('tells the problems of the broker by file', () => {
    const problem = { document: 3, line: 6, column: 1, rule: 'duplicate_key', message: 'twice', object: 'v1 ConfigMap x' };
    expect(problemLine(manifests, problem)).toBe('b.yaml:3:1: twice (duplicate_key), in v1 ConfigMap x');
    const error = new CliError('invalid_deployment_object', 'bad', { details: { problems: [problem] } });
    expect(withPlaces(error, manifests)).toMatchObject({
      code: 'invalid_deployment_object',
      message: 'the content has 1 problem\n  b.yaml:3:1: twice (duplicate_key), in v1 ConfigMap x',
    });
  });
});
