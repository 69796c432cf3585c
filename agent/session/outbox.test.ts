import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { eventOf, eventually } from '../../test/agent-side.ts';
import { openOutbox } from './outbox.ts';

const log = createLog('test', { level: 'fatal' });
let dir = '';
let stop = new AbortController();
let boots = 0;
const open = (maxBytes?: number) =>
  openOutbox({ log, newId: () => `boot-${++boots}` }, { dir, ...(maxBytes !== undefined && { maxBytes }) }, stop.signal);

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-outbox-'));
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort(new Error('test over'));
  await rm(dir, { recursive: true });
});

describe('outbox', () => {
  it('numbers events and keeps numbers, boot id and events over a restart', async () => {
    {
      await using outbox = await open();
      await Promise.all(['a', 'b', 'c'].map((id) => outbox.append(eventOf(id))));
      await outbox.acknowledge(outbox.bootId, 1n);
    }
    await using again = await open();
    expect(again.bootId).toBe(`boot-${boots}`);
    expect(again.lastSeq).toBe(3n);
    await again.append(eventOf('d'));
    await again.acknowledge(again.bootId, 1n);
    expect(again.read(0n, 10, 1e6).map(({ seq, attemptId }) => `${seq}${attemptId}`)).toEqual(['2b', '3c', '4d']);
  });

  it('ignores acknowledgements of another run of numbers', async () => {
    await using outbox = await open();
    await outbox.append(eventOf('a'));
    await outbox.acknowledge('other', 9n);
    expect(outbox.pending).toBe(1);
  });

  it('drops a line torn by a crash and goes on after it', async () => {
    {
      await using outbox = await open();
      await outbox.append(eventOf('a'));
    }
    await appendFile(join(dir, 'outbox.log'), '2 deadbeef CgE');
    await using again = await open();
    expect(again.pending).toBe(1);
    await again.append(eventOf('b'));
    expect(again.read(0n, 10, 1e6).map(({ attemptId }) => attemptId)).toEqual(['a', 'b']);
    expect((await readFile(join(dir, 'outbox.log'), 'utf8')).split('\n')).toHaveLength(4);
  });

  it('begins a new run when the file is not its own', async () => {
    await appendFile(join(dir, 'outbox.log'), 'something else\n');
    await using outbox = await open();
    expect(outbox.lastSeq).toBe(0n);
    expect(outbox.bootId).toBe(`boot-${boots}`);
  });

  it('lets new outcomes wait while it is full, and drops none', async () => {
    await using outbox = await open(100);
    await outbox.append(eventOf('a'.repeat(100)));
    let stored = false;
    const waiting = outbox.append(eventOf('b')).then(() => {
      stored = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(stored).toBe(false);
    await outbox.acknowledge(outbox.bootId, 1n);
    await waiting;
    expect(outbox.pending).toBe(1);
  });

  it('shrinks the file once most of it is acknowledged', async () => {
    await using outbox = await open();
    const large = eventOf('x'.repeat(100_000));
    for (let count = 0; count < 12; count++) await outbox.append(large);
    const before = (await stat(join(dir, 'outbox.log'))).size;
    await outbox.acknowledge(outbox.bootId, 12n);
    expect((await stat(join(dir, 'outbox.log'))).size).toBeLessThan(before / 100);
    await outbox.append(eventOf('after'));
    expect(outbox.read(0n, 10, 1e6).map(({ seq }) => seq)).toEqual([13n]);
  });

  it('reads no more than asked for', async () => {
    await using outbox = await open();
    for (let count = 0; count < 10; count++) await outbox.append(eventOf('x'.repeat(1000)));
    expect(outbox.read(0n, 3, 1e6)).toHaveLength(3);
    expect(outbox.read(0n, 10, 2500)).toHaveLength(2);
    expect(outbox.read(0n, 10, 1)).toHaveLength(1);
  });

  it('has lost nothing that was stored when the process is killed', async () => {
    const script = `
      import { openOutbox } from ${JSON.stringify(new URL('./outbox.ts', import.meta.url).href)};
      import { createLog } from ${JSON.stringify(new URL('../../lib/log.ts', import.meta.url).href)};
      import { create } from '@bufbuild/protobuf';
      import { AttemptEventSchema } from '#proto/brokkr/v1/sync_pb.js';
      const outbox = await openOutbox({ log: createLog('child', { level: 'fatal' }), newId: () => 'child' }, { dir: ${JSON.stringify(dir)} }, new AbortController().signal);
      for (let count = 1; ; count++) {
        await outbox.append(create(AttemptEventSchema, { attemptId: 'attempt-' + count, message: 'm'.repeat(count % 997) }));
        process.stdout.write(count + '\\n');
      }`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      cwd: new URL('..', import.meta.url).pathname,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let stored = 0;
    createInterface({ input: child.stdout }).on('line', (line) => {
      stored = Number(line);
    });
    await eventually(() => stored > 50);
    child.kill('SIGKILL');
    await once(child, 'close');
    await using outbox = await open();
    expect(outbox.bootId).toBe('child');
    expect(outbox.pending).toBeGreaterThanOrEqual(stored);
    const events = outbox.read(0n, 100_000, 1e9);
    expect(events.map(({ attemptId }) => attemptId)).toEqual(events.map((_, index) => `attempt-${index + 1}`));
  });
});
