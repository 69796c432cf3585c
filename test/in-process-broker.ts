import { randomUUID } from 'node:crypto';
import { afterAll } from 'vitest';
import { AgentEntity } from '../broker/agents/entities.ts';
import { type Broker, createBroker } from '../broker/broker.ts';
import { loadBrokerConfig } from '../broker/config.ts';
import type { Database } from '../broker/database.ts';
import { GeneratorEntity } from '../broker/generators/entities.ts';
import { insertKey } from '../broker/keys/store.ts';
import { StackEntity } from '../broker/stacks/entities.ts';
import { systemClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import { mintKey } from '../lib/pak.ts';
import { runTasks } from '../lib/run.ts';
import { testDatabase } from './postgres.ts';

/** A broker in the test's own process, on a database of its own. */
export interface InProcessBroker {
  readonly url: string;
  readonly db: Database;
  readonly broker: Broker;
  readonly adminPak: string;
  /** REST with the admin key, unless another is given; JSON in and out. */
  api<T = Record<string, unknown>>(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<{ readonly status: number; readonly body: T; readonly headers: Headers }>;
  /** Creates an agent with labels and returns its id and key. */
  agent(name: string, labels?: readonly string[]): Promise<{ readonly id: string; readonly pak: string }>;
  /** Publishes YAML under a stack name with labels; returns stack id and generation. */
  publish(stack: string, yaml: string, labels?: readonly string[]): Promise<{ readonly id: string; readonly generation: number }>;
  stop(): Promise<void>;
}

const cleanups: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** Starts it; `env` are further settings (`BROKKR__…`). Stopped at the end of the file. */
export async function startInProcessBroker({
  env = {},
  database,
}: {
  readonly env?: Readonly<Record<string, string>>;
  readonly database?: { readonly url: string };
} = {}): Promise<InProcessBroker> {
  const own = database ?? (await testDatabase());
  const config = loadBrokerConfig({
    DATABASE_URL: own.url,
    BROKKR__BROKER__LISTEN: '127.0.0.1:0',
    BROKKR__DATABASE__POOL_MAX: '10',
    ...env,
  });
  const { openTestDatabase } = await import('./postgres.ts');
  const db = await openTestDatabase(
    own.url,
    { ...config.database, url: own.url },
    { entities: [AgentEntity, GeneratorEntity, StackEntity] },
  );
  const admin = mintKey();
  await insertKey(db, { role: 'admin', name: 'test', ...admin });
  const log = createLog('broker', { level: process.env.BROKKR_TEST_LOG === 'debug' ? 'debug' : 'fatal' });
  const broker = createBroker(config, { db, log, clock: systemClock, random: Math.random, newId: randomUUID, version: 'test' });
  const stop = new AbortController();
  const running = runTasks(broker.tasks, stop.signal);
  running.catch(() => undefined);
  const url = `http://${await broker.server.ready}`;
  const end = async () => {
    stop.abort(new Error('test over'));
    await running.catch(() => undefined);
    await broker.yaml[Symbol.asyncDispose]();
  };
  cleanups.push(end);
  const api: InProcessBroker['api'] = async (method, path, body, headers = {}) => {
    const json = body !== undefined && typeof body !== 'string';
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { authorization: admin.pak, ...(json && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body: json ? JSON.stringify(body) : String(body) }),
    });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json') ?? false;
    return {
      status: response.status,
      headers: response.headers,
      body: (text === '' ? undefined : isJson ? JSON.parse(text) : text) as never,
    };
  };
  return {
    url,
    db,
    broker,
    adminPak: admin.pak,
    api,
    async agent(name, labels = []) {
      const { status, body } = await api<{ agent: { id: string }; initial_pak: string }>('POST', '/api/v1/agents', {
        name,
        cluster_name: 'test',
        labels,
      });
      if (status !== 201) throw new Error(`agent not created: ${status} ${JSON.stringify(body)}`);
      return { id: body.agent.id, pak: body.initial_pak };
    },
    async publish(stack, yaml, labels = []) {
      const query = labels.map((label) => `label=${encodeURIComponent(label)}`).join('&');
      const { status, body } = await api<{ stack: { id: string; generation: number } }>(
        'PUT',
        `/api/v1/stacks/by-name/${stack}/apply?${query}`,
        yaml,
        { 'content-type': 'application/yaml' },
      );
      if (status !== 200) throw new Error(`not published: ${status} ${JSON.stringify(body)}`);
      return body.stack;
    },
    stop: end,
  };
}
