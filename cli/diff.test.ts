import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { diffLines, documentsOf } from './diff.ts';
import { joinManifests } from './manifests.ts';
import { unifiedDiff } from './unified-diff.ts';

const dir = mkdtempSync(join(tmpdir(), 'brokkr-diff-'));
afterAll(() => rmSync(dir, { recursive: true }));

const configMap = (name: string, value: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\ndata:\n  key: ${value}\n`;
const secret = (password: string, user = 'me') =>
  `apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  # was hunter1\n  password: ${password}\n  user: ${user}\n`;
const documents = (...texts: string[]) => documentsOf(joinManifests(texts.map((text) => ({ path: 'x', text }))));

describe('unifiedDiff', () => {
  it('is what git apply takes, for random texts', () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed % below;
    };
    for (let round = 0; round < 40; round++) {
      const before = Array.from({ length: random(30) }, () => `line ${random(6)}\n`);
      const after = before.flatMap((line) => (random(5) === 0 ? [] : random(5) === 0 ? [line, `new ${random(3)}\n`] : [line]));
      const lines = unifiedDiff(before.join(''), after.join(''));
      writeFileSync(join(dir, 'file'), before.join(''));
      writeFileSync(join(dir, 'diff'), `--- file\n+++ file\n${lines.join('\n')}\n`);
      if (lines.length > 0) execFileSync('git', ['apply', '-p0', 'diff'], { cwd: dir });
      const result = lines.length > 0 ? execFileSync('cat', [join(dir, 'file')], { encoding: 'utf8' }) : before.join('');
      expect(result).toBe(after.join(''));
    }
  });

  it('shows few lines for few changes in a long text', () => {
    const lines = Array.from({ length: 5_000 }, (_, index) => `line ${index}`);
    const changed = lines.with(2_500, 'changed');
    expect(unifiedDiff(lines.join('\n'), changed.join('\n'))).toEqual([
      '@@ -2498,7 +2498,7 @@',
      ' line 2497',
      ' line 2498',
      ' line 2499',
      '-line 2500',
      '+changed',
      ' line 2501',
      ' line 2502',
      ' line 2503',
    ]);
  });
});

describe('diffLines', () => {
  it('says nothing about documents in another order', () => {
    const [a, b] = [configMap('a', '1'), configMap('b', '2')];
    expect(diffLines(documents(a, b), documents(b, a))).toEqual([]);
  });

  it('shows changed, added and removed documents', () => {
    const lines = diffLines(
      documents(configMap('a', '1'), configMap('b', '2')),
      documents(configMap('a', '9'), configMap('c', '3')),
    );
    expect(lines).toContain('--- published v1 ConfigMap a');
    expect(lines).toContain('-  key: 1');
    expect(lines).toContain('+  key: 9');
    expect(lines).toContain('+++ /dev/null');
    expect(lines).toContain('--- /dev/null');
    expect(lines).toContain('+++ local v1 ConfigMap c');
  });

  it('never shows what a Secret holds, in values, comments or copies of it', () => {
    const text = diffLines(documents(secret('hunter2')), documents(secret('hunter3'))).join('\n');
    expect(text).not.toContain('hunter');
    expect(text).toContain("+  password: '*** (changed)'");
    expect(text).toContain("   user: '***'");
    const list = (password: string) =>
      `apiVersion: v1\nkind: List\nitems:\n- ${secret(password).trim().replaceAll('\n', '\n  ')}\n`;
    expect(diffLines(documents(list('hunter2')), documents(list('hunter3'))).join('\n')).not.toContain('hunter');
  });

  it('says that a Secret changed even when only its layout did', () => {
    const lines = diffLines(documents(secret('x')), documents(secret('x').replace('hunter1', 'hunter0')));
    expect(lines).toContain(' (comments or layout only)');
  });

  it('refuses a text that is not YAML, with its place and without its content', () => {
    expect(() => documents('a: 1\nb: [hunter2\n')).toThrow(/x:[0-9]+:[0-9]+: (?!.*hunter)/);
  });
});
