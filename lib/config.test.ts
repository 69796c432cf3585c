import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, describe, expect, expectTypeOf, it } from 'vitest';
import { ConfigError, defineConfig, describeConfig, loadConfig } from './config.ts';

const table = defineConfig(
  {
    'broker.listen': { type: 'string', default: '0.0.0.0:3000', meaning: 'address and port' },
    'broker.pool_max': { type: 'int', default: 20, min: 1, max: 200, meaning: 'connections' },
    'broker.poll_hold': { type: 'duration', default: '25s', max: 25_000, meaning: 'longest poll' },
    'broker.verbose': { type: 'bool', default: false, meaning: 'says more' },
    'broker.acceptance': { type: 'enum', values: ['all', 'registered'], default: 'all', meaning: 'whom to take' },
    'broker.pak_hash': { type: 'string', secret: true, meaning: 'hash of the admin key' },
    'database.url': { type: 'string', secret: true, aliases: ['DATABASE_URL'], meaning: 'where the database is' },
    'cors.allowed_origins': { type: 'list', default: ['http://localhost:3001'], meaning: 'origins' },
    'telemetry.broker.enabled': { type: 'bool', default: false, meaning: 'traces of the broker' },
  },
  { foreignSections: ['agent'] },
);
const dir = mkdtempSync(join(tmpdir(), 'brokkr-config-'));
afterAll(() => rmSync(dir, { recursive: true }));
const file = (name: string, text: string) => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
const problemsOf = (env: Record<string, string>, path?: string): readonly string[] => {
  try {
    loadConfig(table, { env, ...(path && { file: path }) });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
};

describe('configuration', () => {
  it('has the defaults, typed, with units in the names', () => {
    const config = loadConfig(table, { env: {} });
    expect(config.broker).toMatchObject({
      listen: '0.0.0.0:3000',
      poolMax: 20,
      pollHoldMs: 25_000,
      verbose: false,
      acceptance: 'all',
    });
    expect(config.database.url).toBeUndefined();
    expect(config.telemetry.brokerEnabled).toBe(false);
    expectTypeOf(config.broker.pollHoldMs).toEqualTypeOf<number>();
    expectTypeOf(config.broker.acceptance).toEqualTypeOf<'all' | 'registered'>();
    expectTypeOf(config.database.url).toEqualTypeOf<string | undefined>();
    expectTypeOf(config.cors.allowedOrigins).toEqualTypeOf<readonly string[]>();
  });

  it('prefers the environment to the file and the file to the default', () => {
    const path = file(
      'a.yaml',
      'broker:\n  listen: file:1\n  pool_max: 7\n  poll_hold: 5\ncors:\n  allowed_origins: [a, b]\nagent:\n  anything: goes\n',
    );
    const config = loadConfig(table, {
      env: { BROKKR__BROKER__LISTEN: 'env:1', BROKKR__BROKER__VERBOSE: 'true', BROKKR_CONFIG_FILE: path },
    });
    expect(config.broker).toMatchObject({ listen: 'env:1', poolMax: 7, pollHoldMs: 5_000, verbose: true });
    expect(config.cors.allowedOrigins).toEqual(['a', 'b']);
    const json = loadConfig(table, { env: {}, file: file('a.json', '{"broker":{"pool_max":9}}') });
    expect(json.broker.poolMax).toBe(9);
  });

  it('knows aliases, and takes the proper name first', () => {
    expect(loadConfig(table, { env: { DATABASE_URL: 'a' } }).database.url).toBe('a');
    expect(loadConfig(table, { env: { DATABASE_URL: 'a', BROKKR__DATABASE__URL: 'b' } }).database.url).toBe('b');
  });

  it('reads secrets from files and treats empty variables as absent', () => {
    const path = file('hash', 'sha256:abc\n');
    const config = loadConfig(table, { env: { BROKKR__BROKER__PAK_HASH_FILE: path, BROKKR__BROKER__POOL_MAX: '' } });
    expect(config.broker.pakHash).toBe('sha256:abc');
    expect(config.broker.poolMax).toBe(20);
  });

  it.each([
    ['250ms', 250],
    ['2s', 2_000],
    ['0.2m', 12_000],
    ['7', 7_000],
  ])('reads the duration %s', (text, ms) => {
    expect(loadConfig(table, { env: { BROKKR__BROKER__POLL_HOLD: text } }).broker.pollHoldMs).toBe(ms);
  });

  it('reports every problem at once', () => {
    const path = file('bad.yaml', 'broker:\n  listne: x\nwrong: 1\n');
    const problems = problemsOf(
      {
        BROKKR__BROKER__POOL_MAX: 'many',
        BROKKR__BROKER__POLL_HOLD: '1h',
        BROKKR__BROKER__VERBOSE: 'perhaps',
        BROKKR__BROKER__ACCEPTANCE: 'some',
        BROKKR__DATABSE__URL: 'postgres://hidden',
        BROKKR__AGENT__PAK: 'not ours',
        BROKKR__BROKER__PAK_HASH_FILE: join(dir, 'absent'),
      },
      path,
    );
    expect(problems).toEqual([
      `broker.listne in ${path} is unknown: did you mean broker.listen?`,
      `wrong in ${path} is unknown`,
      'BROKKR__DATABSE__URL is unknown: did you mean BROKKR__DATABASE__URL?',
      'BROKKR__BROKER__POOL_MAX: "many" is not a whole number',
      'BROKKR__BROKER__POLL_HOLD: "1h" is not at most 25000 ms',
      'BROKKR__BROKER__VERBOSE: "perhaps" is not true or false',
      'BROKKR__BROKER__ACCEPTANCE: "some" is not one of all, registered',
      expect.stringContaining('BROKKR__BROKER__PAK_HASH_FILE: ENOENT'),
    ]);
    expect(new ConfigError(problems).message).toContain('has 8 problems');
  });

  it('never prints a secret', () => {
    const config = loadConfig(table, { env: { DATABASE_URL: 'postgres://u:hunter2@db' } });
    expect(config.database.url).toContain('hunter2');
    for (const text of [JSON.stringify(config), inspect(config), `${inspect(config.database)}`]) {
      expect(text).not.toContain('hunter2');
      expect(text).toContain('[redacted]');
    }
  });

  it('refuses a file that is no mapping, or cannot be read', () => {
    expect(problemsOf({}, file('list.yaml', '- a'))).toHaveLength(1);
    const broken = problemsOf({}, file('broken.yaml', 'database:\n  url: hunter2: [')).join();
    expect(broken).toContain('cannot be read: bad indentation');
    expect(broken).not.toContain('hunter2');
    expect(problemsOf({}, join(dir, 'none.yaml')).join()).toContain('ENOENT');
  });

  it('describes itself for the reference page', () => {
    const rows = describeConfig(table);
    expect(rows[1]).toEqual({
      key: 'broker.pool_max',
      variable: 'BROKKR__BROKER__POOL_MAX',
      aliases: [],
      type: 'int',
      default: '20',
      limits: '≥ 1, ≤ 200',
      secret: false,
      meaning: 'connections',
    });
    expect(rows.find((row) => row.key === 'database.url')).toMatchObject({
      aliases: ['DATABASE_URL'],
      default: 'none',
      secret: true,
    });
  });

  it('refuses a table whose default breaks its own rule', () => {
    expect(() => defineConfig({ 'a.b': { type: 'int', default: 0, min: 1, meaning: 'x' } })).toThrow(/a.b/);
  });
});
