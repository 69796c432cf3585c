import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const bin = fileURLToPath(new URL('../bin/brokkr.js', import.meta.url));
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-main-'));
});
afterAll(() => rm(dir, { recursive: true }));

/** Runs the real program, far from the user's own context. */
async function brokkr(args: readonly string[], { env = {}, stdin = '' } = {}) {
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: dir,
    env: { PATH: process.env.PATH, HOME: dir, XDG_CACHE_HOME: join(dir, 'cache'), ...env },
  });
  child.stdin.end(stdin);
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.on('close', resolve)),
  ]);
  return { stdout, stderr, code };
}

describe('brokkr', () => {
  it('mints keys offline whose hash is that of the long token', async () => {
    const { stdout, code } = await brokkr(['generate-pak', '-o', 'json']);
    expect(code).toBe(0);
    const { pak, hash, ...rest } = JSON.parse(stdout);
    expect(rest).toEqual({});
    expect(pak).toMatch(/^brokkr_BR[0-9A-Za-z]{6}_[0-9A-Za-z]{24}$/);
    expect(hash).toBe(createHash('sha256').update(pak.split('_')[2]).digest('hex'));
  });

  it.each([
    [['no-such-command'], 'unknown command'],
    [['status'], "missing required argument 'stack'"],
    [['apply', '--stack', 'x'], '--filename'],
    [['apply', '-f', 'x', '--stack', 'x', '--option', 'drift=corect'], 'options.drift is "corect", allowed are correct, detect'],
    [['apply', '-f', 'x', '--stack', 'x', '--option', 'drft=off'], 'unknown field options.drft, known are deletion_policy'],
    [['set', 'x', 'ignore=[{kind: Pod, path: /a}]'], 'unknown field options.ignore[0].path, known are group, kind'],
    [['set', 'x', 'approve_deletes=many'], 'approve_deletes'],
    [['set', 'x', 'paused'], 'key=value'],
    [['rollback', 'x', '--to', 'zero'], 'it is not a number from 1'],
    [['rollback', 'x', '--to', '1', '--revision', '2'], 'a generation or a revision, not both'],
    [['get', 'cheese'], 'Allowed choices are agents'],
    [['apply', '-f', 'x', '--stack', 'x', '--timeout', 'soon'], 'it is not a duration'],
    [['apply', '-f', 'x', '--stack', 'x', '--annotation', 'novalue'], 'key=value'],
    [['--broker', 'nowhere', 'get', 'stacks'], 'not an http or https address'],
    [['targets', 'explain', '--broker', 'http://127.0.0.1:2'], 'name an --agent'],
    [['get', 'deployments', '--broker', 'http://127.0.0.1:2'], 'of which stack'],
    [[], 'Usage: brokkr'],
  ])('ends %j with 2 and says what is wrong', async (args, words) => {
    const { stderr, stdout, code } = await brokkr(args);
    expect(stderr).toContain(words);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  it('ends with 1, the code and the next step when there is no broker', async () => {
    expect(await brokkr(['get', 'stacks'])).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'error: no broker is known (no_broker)\n  start one with brokkr up, or name one with --broker or BROKKR_BROKER_URL\n',
    });
    const { stderr, code } = await brokkr(['get', 'stacks'], { env: { BROKKR_BROKER_URL: 'http://127.0.0.1:2' } });
    expect(stderr).toContain('cannot reach the broker at http://127.0.0.1:2: ECONNREFUSED (unreachable)');
    expect(code).toBe(1);
  });

  it('names the file and the line of what is not YAML before it asks the broker', async () => {
    await writeFile(join(dir, 'a.yaml'), 'a: 1\n');
    const args = ['diff', '-f', 'a.yaml', '-f', '-', '--stack', 'x', '--broker', 'http://127.0.0.1:2'];
    const { stderr, code } = await brokkr(args, { stdin: 'b: 1\nb: 2\n' });
    expect(stderr).toContain('-:2:1: ');
    expect(stderr).toContain('duplicate_key');
    expect(code).toBe(1);
  });

  it.each([[['--version']], [['version']]])('prints its version for %j', async (args) => {
    const { stdout, code } = await brokkr(args);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(code).toBe(0);
  });

  it('does not start a broker on a port that is taken, and says how to choose another', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    const { stderr, code } = await brokkr(['up', '--once', '--port', String(port), '--data-dir', join(dir, 'data')]);
    other.close();
    expect(stderr).toContain(`something listens on 127.0.0.1:${port} already (port_taken)`);
    expect(stderr).toContain(`--port ${port + 1}`);
    expect(code).toBe(1);
  });

  it('starts quickly', async () => {
    const took: number[] = [];
    for (let run = 0; run < 5; run++) {
      const began = performance.now();
      await brokkr(['completion', 'bash']);
      took.push(performance.now() - began);
    }
    // 300 ms on a quiet machine; tests share theirs with others, so the best run counts and has some room
    expect(Math.min(...took)).toBeLessThan(600);
  });
});

describe('brokkr completion', () => {
  /** What bash offers for the last word. */
  async function offered(...words: string[]): Promise<string[]> {
    const { stdout: script } = await brokkr(['completion', 'bash']);
    const line = words.map((word) => `'${word}'`).join(' ');
    const lines = [
      script,
      `COMP_WORDS=(brokkr ${line})`,
      `COMP_CWORD=${words.length}`,
      '_brokkr',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: shell
      'printf "%s\\n" "${COMPREPLY[@]}"',
    ];
    const bash = spawn('bash', ['--norc', '-c', lines.join('\n')], { cwd: dir });
    const [out, err] = await Promise.all([text(bash.stdout), text(bash.stderr)]);
    expect(err).toBe('');
    return out.split('\n').filter((word) => word !== '');
  }

  it('offers commands, nested commands, kinds, options and their values in bash', async () => {
    expect(await offered('a')).toEqual(['apply', 'annotate']);
    expect(await offered('create', '')).toEqual(expect.arrayContaining(['agent', 'generator', 'key']));
    expect(await offered('get', 's')).toEqual(['stacks']);
    expect(await offered('apply', '--wa')).toEqual(['--wait']);
    expect(await offered('get', 'stacks', '-o', 'y')).toEqual(['yaml']);
    await writeFile(join(dir, 'stack.yaml'), '');
    expect(await offered('apply', '-f', 'stack')).toEqual(['stack.yaml']);
  });

  it.each(['zsh', 'fish'])('prints a script for %s that names every command', async (shell) => {
    const { stdout, code } = await brokkr(['completion', shell]);
    expect(code).toBe(0);
    for (const word of ['apply', 'create', 'generator', '--wait', 'explain']) expect(stdout).toContain(word);
  });
});
