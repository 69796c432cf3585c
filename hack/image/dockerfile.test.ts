import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../process.ts';
import { pairsOf, parseDockerfile } from './dockerfile.ts';

describe('a Dockerfile', () => {
  it('is read as stages of instructions, with continued lines, comments and flags', () => {
    const text =
      '# one\nFROM --platform=$BUILDPLATFORM node AS build\nRUN a \\\n    && b\n\nFROM debian\nCOPY --from=build /a /b\nrun c --d=e\n';
    expect(parseDockerfile(text)).toEqual([
      { base: 'node', name: 'build', instructions: [{ line: 3, name: 'RUN', flags: {}, text: 'a && b' }] },
      {
        base: 'debian',
        name: '',
        instructions: [
          { line: 7, name: 'COPY', flags: { from: 'build' }, text: '/a /b' },
          { line: 8, name: 'RUN', flags: {}, text: 'c --d=e' },
        ],
      },
    ]);
  });

  it('has pairs in ENV and LABEL, quoted or not', () => {
    const pairs = (text: string) => pairsOf({ line: 1, name: 'ENV', flags: {}, text });
    expect(pairs('A=1 b.c="two words" D=')).toEqual({ A: '1', 'b.c': 'two words', D: '' });
    expect(() => pairs('A 1')).toThrow('line 1: ENV is not made of key=value pairs: A 1');
  });

  it('of ours pins its bases and installs what is locked', async () => {
    const stages = parseDockerfile(await readFile(join(ROOT, 'deploy/image/Dockerfile'), 'utf8'));
    expect(stages.filter(({ base }) => !/^[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}$/.test(base))).toEqual([]);
    const installs = stages.flatMap(({ instructions }) => instructions).filter(({ text }) => /npm (ci|install|i)\b/.test(text));
    expect(installs.length).toBe(2);
    expect(installs.every(({ text }) => text.includes('npm ci'))).toBe(true);
  });
});
