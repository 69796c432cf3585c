import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from './clock.ts';
import type { ManifestEntry } from './object.ts';
import { createYamlPool } from './yaml-pool.ts';

const signal = new AbortController().signal;
const salt = new Uint8Array(16).fill(1);

/** About `1 MB` for 1,758 documents. */
function deployments(count: number): string {
  const one = (index: number) => `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-${index}
  namespace: shop
  labels: {app: web}
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - name: web
          image: registry.example/web:1.${index}
          ports:
            - name: http
              containerPort: 8080
          env:
            - name: GREETING
              value: "hello world"
          resources:
            limits: {cpu: 100m, memory: 128Mi}
            requests: {cpu: 100m, memory: 128Mi}
`;
  return Array.from({ length: count }, (_, index) => one(index)).join('---\n');
}

describe('yaml pool', () => {
  const pool = createYamlPool({ maxThreads: 1 });
  afterAll(async () => {
    await pool[Symbol.asyncDispose]();
  });

  it('publishes and prepares in a thread, with equal digests, and counts the tasks', async () => {
    const text = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';
    const { manifest, documents, problems } = await pool.publish({ text, salt, validation: 'full' }, signal);
    expect(problems).toEqual([]);
    const entries = manifest as readonly ManifestEntry[];
    const stamp = { labels: {}, annotations: {} };
    const input = { documents, entries, salt, scopes: { '/ConfigMap': 'Namespaced' as const }, defaultNamespace: 'd', stamp };
    const { objects } = await pool.prepare(input, signal);
    expect(objects).toMatchObject([{ digest: entries[0]?.objectDigest, key: { namespace: 'd' } }]);
    expect(await pool.diff({ before: '{"a":1}', after: '{"a":2}', secret: false }, signal)).toHaveLength(1);
    expect(pool.counts).toEqual({ parse: 1, prepare: 1, check: 0, diff: 1 });
  });

  it('publishes 1,758 documents of 1 MB in far less than 3 s', async () => {
    const text = deployments(1758);
    const start = systemClock.monotonic();
    const { manifest, problems } = await pool.publish({ text, salt, validation: 'full' }, signal);
    const ms = systemClock.monotonic() - start;
    expect(problems).toEqual([]);
    expect(manifest).toHaveLength(1758);
    expect(ms).toBeLessThan(3000);
  });

  it('rejects with the reason of the signal, also in the middle, and works on', async () => {
    const early = new AbortController();
    early.abort(new Error('not wanted'));
    const small = { text: 'a: 1', salt, validation: 'none' } as const;
    await expect(pool.publish(small, early.signal)).rejects.toThrow('not wanted');
    const late = new AbortController();
    const running = pool.publish({ text: deployments(4000), salt, validation: 'full' }, late.signal);
    late.abort(new Error('gone'));
    await expect(running).rejects.toThrow('gone');
    expect((await pool.publish(small, signal)).problems).toEqual([]);
  });

  it('ends a task that takes too long', async () => {
    await using impatient = createYamlPool({ maxThreads: 1, taskTimeoutMs: 1 });
    const task = impatient.publish({ text: deployments(2000), salt, validation: 'full' }, signal);
    await expect(task).rejects.toMatchObject({ code: 'deadline_exceeded' });
  });

  it('refuses tasks beyond its queue', async () => {
    await using narrow = createYamlPool({ maxThreads: 1, maxQueue: 1 });
    const tasks = Array.from({ length: 6 }, () => narrow.publish({ text: deployments(200), salt, validation: 'full' }, signal));
    const ends = await Promise.allSettled(tasks);
    expect(ends.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', ...Array(4).fill('rejected')]);
    expect(ends[5]).toMatchObject({ reason: { code: 'too_many_requests' } });
  });

  it('forgets a waiting task that is no longer wanted', async () => {
    await using narrow = createYamlPool({ maxThreads: 1 });
    const input = { text: deployments(500), salt, validation: 'full' } as const;
    const first = narrow.publish(input, signal);
    const unwanted = new AbortController();
    const second = narrow.publish(input, unwanted.signal);
    const third = narrow.publish(input, signal);
    expect(narrow.queued).toBe(2);
    unwanted.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    expect(narrow.queued).toBe(1);
    expect((await Promise.all([first, third])).map(({ problems }) => problems)).toEqual([[], []]);
  });

  it('rejects what runs and waits when it is closed', async () => {
    const closing = createYamlPool({ maxThreads: 1 });
    const input = { text: deployments(2000), salt, validation: 'full' } as const;
    const tasks = Promise.allSettled([closing.publish(input, signal), closing.publish(input, signal)]);
    await closing[Symbol.asyncDispose]();
    expect((await tasks).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(closing.publish(input, signal)).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('refuses a text that needs more memory than a thread may have', async () => {
    await using small = createYamlPool({ maxThreads: 1, maxHeapMb: 24 });
    const text = `a:\n${'- {b: 1, c: [2, 3]}\n'.repeat(200_000)}`;
    await expect(small.publish({ text, salt, validation: 'full' }, signal)).rejects.toMatchObject({ code: 'payload_too_large' });
  });
});
