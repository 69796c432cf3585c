import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { connectAgent, hello, type ScriptedAgent } from '../../test/agent-client.ts';
import { FakeClock } from '../../test/fake-clock.ts';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';
import { testDatabase } from '../../test/postgres.ts';
import { forgetQuestions } from '../maintenance/store.ts';
import { Questions } from './questions.ts';

let broker: InProcessBroker;
/** Another replica on the same database. */
let other: InProcessBroker;
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;

interface Explained {
  readonly status: { readonly agent_id: string; readonly phase: string };
  readonly unanswered: { readonly reason: string; readonly message: string; readonly last_seen_at: string | null } | null;
  readonly objects: readonly { readonly status: { readonly kind: string; readonly name: string; readonly state: string } }[];
  readonly next_page_token: string;
}

const configMaps = (...names: readonly string[]) =>
  names.map((name) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: shop}\n`).join('---\n');

beforeAll(async () => {
  const database = await testDatabase();
  broker = await startInProcessBroker({ database });
  other = await startInProcessBroker({ database });
});

/** A stack with three ConfigMaps on an agent of its own. */
async function publish() {
  const label = unique('label');
  const agent = await broker.agent(unique('agent'), [label]);
  const stack = await broker.publish(unique('stack'), configMaps('a', 'b', 'c'), [label]);
  return { agent, stack, path: `/api/v1/stacks/${stack.id}/explain` };
}

async function connect(url: string, pak: string): Promise<ScriptedAgent> {
  const client = connectAgent(url, pak);
  client.send(hello());
  await client.take('snapshotEnd');
  return client;
}

function answer(client: ScriptedAgent, id: string, name: string, next = ''): void {
  const objects = [{ status: { kind: 'ConfigMap', namespace: 'shop', name, state: 'in_sync' } }];
  client.send({ case: 'answer', value: { id, body: { case: 'explanation', value: { objects, next } } } });
}

async function rows(agentId: string): Promise<number> {
  return (await broker.db.query('select from agent_query where agent_id = $1', [agentId])).length;
}

describe('a question', () => {
  it('is answered by the agent and leaves nothing behind', async () => {
    const { agent, stack, path } = await publish();
    using client = await connect(broker.url, agent.pak);
    const asking = broker.api<Explained>('GET', `${path}?kind=configmap&name=a&namespace=shop&limit=7`);
    const query = await client.take('query');
    expect(query.timeoutMs).toBeGreaterThan(10_000);
    expect(query.body).toMatchObject({
      case: 'explain',
      value: { stackId: stack.id, filter: { group: '', kind: 'configmap', namespace: 'shop', name: 'a' }, limit: 7, after: '' },
    });
    answer(client, query.id, 'a', '/ConfigMap/shop/a');
    const { status, body } = await asking;
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: { agent_id: agent.id },
      unanswered: null,
      objects: [{ status: { kind: 'ConfigMap', name: 'a', state: 'in_sync' } }],
    });
    expect(await rows(agent.id)).toBe(0);
    const following = broker.api<Explained>('GET', `${path}?page_token=${body.next_page_token}`);
    const second = await client.take('query');
    expect(second.body).toMatchObject({ value: { after: '/ConfigMap/shop/a', limit: 500 } });
    answer(client, second.id, 'b');
    expect((await following).body.next_page_token).toBe('');
  });

  it('asked at a replica without the session reaches the agent within a second, and the answer the asker', async () => {
    const { agent, path } = await publish();
    using client = await connect(other.url, agent.pak);
    const since = performance.now();
    const asking = broker.api<Explained>('GET', path);
    const query = await client.take('query');
    answer(client, query.id, 'a');
    expect((await asking).body).toMatchObject({ unanswered: null, objects: [{ status: { name: 'a' } }] });
    expect(performance.now() - since).toBeLessThan(2000);
  });

  it('goes to the session that follows when the first one ends', async () => {
    const { agent, path } = await publish();
    const client = await connect(broker.url, agent.pak);
    const asking = broker.api<Explained>('GET', path);
    const first = await client.take('query');
    using again = await connect(broker.url, agent.pak);
    client[Symbol.dispose]();
    const second = await again.take('query');
    expect(second.id).toBe(first.id);
    answer(again, second.id, 'b');
    expect((await asking).body).toMatchObject({ unanswered: null, objects: [{ status: { name: 'b' } }] });
  });

  it('takes the answer of its own agent only', async () => {
    const { agent, path } = await publish();
    const stranger = await publish();
    using client = await connect(broker.url, agent.pak);
    using liar = await connect(broker.url, stranger.agent.pak);
    const asking = broker.api<Explained>('GET', path);
    const query = await client.take('query');
    answer(liar, query.id, 'lie');
    liar.send({ case: 'ping', value: {} });
    await liar.take('pong'); // its answer was handled
    answer(client, query.id, 'a');
    expect((await asking).body.objects).toMatchObject([{ status: { name: 'a' } }]);
  });

  it('tells why the agent could not answer', async () => {
    const { agent, path } = await publish();
    using client = await connect(broker.url, agent.pak);
    const asking = broker.api<Explained>('GET', path);
    const { id } = await client.take('query');
    client.send({ case: 'answer', value: { id, body: { case: 'failure', value: 'too much at once' } } });
    expect((await asking).body).toMatchObject({
      unanswered: { reason: 'agent_failed', message: 'too much at once' },
      objects: [{}, {}, {}],
    });
  });

  it('to an agent without a session is answered at once with what the broker knows, page by page', async () => {
    const { agent, path } = await publish();
    const never = await broker.api<Explained>('GET', `${path}?limit=2`);
    expect(never.body).toMatchObject({
      status: { agent_id: agent.id, phase: 'pending' },
      unanswered: { reason: 'agent_offline', message: 'the agent never had a session', last_seen_at: null },
      objects: [
        {
          status: { kind: 'ConfigMap', namespace: 'shop', name: 'a', state: '' },
          wanted: 'yes',
          generation: 1,
          health: 'unknown',
        },
        { status: { name: 'b' } },
      ],
    });
    const rest = await broker.api<Explained>('GET', `${path}?limit=2&page_token=${never.body.next_page_token}`);
    expect(rest.body).toMatchObject({ objects: [{ status: { name: 'c' } }], next_page_token: '' });
    const one = await broker.api<Explained>('GET', `${path}?kind=CONFIGMAP&group=.&name=c`);
    expect(one.body.objects).toMatchObject([{ status: { name: 'c' } }]);
    expect((await broker.api<Explained>('GET', `${path}?kind=secret`)).body.objects).toEqual([]);

    const client = await connect(broker.url, agent.pak);
    client[Symbol.dispose]();
    await client.ended;
    await expect
      .poll(async () => (await broker.api<Explained>('GET', path)).body.unanswered)
      .toMatchObject({
        reason: 'agent_offline',
        message: 'the agent has no session',
        last_seen_at: expect.stringMatching(/Z$/),
      });
  });

  it('is refused while 16 others are open, and makes room when whoever asked hangs up', async () => {
    const { agent, path } = await publish();
    using client = await connect(broker.url, agent.pak);
    const stop = new AbortController();
    const headers = { authorization: broker.adminPak };
    const ask = () => fetch(`${broker.url}${path}`, { headers, signal: stop.signal }).catch(() => undefined);
    const open = Array.from({ length: 16 }, ask);
    await expect.poll(() => rows(agent.id)).toBe(16);
    expect(await broker.api('GET', path)).toMatchObject({ status: 429, body: { code: 'too_many_requests' } });
    stop.abort();
    await Promise.all(open);
    await expect.poll(() => rows(agent.id)).toBe(0);
    expect(client.waiting.filter(({ body }) => body.case === 'query')).toHaveLength(16);
  });

  it('needs an agent named when the stack is with several, and one that the stack is with', async () => {
    const { agent, stack, path } = await publish();
    const second = await broker.agent(unique('agent'));
    expect(await broker.api('GET', `${path}?agent_id=${second.id}`)).toMatchObject({
      status: 404,
      body: { code: 'agent_not_found' },
    });
    await broker.api('POST', `/api/v1/agents/${second.id}/targets`, { agent_id: second.id, stack_id: stack.id });
    expect(await broker.api('GET', path)).toMatchObject({
      status: 400,
      body: { code: 'agent_required', details: { agents: [expect.stringContaining('test/'), expect.stringContaining('test/')] } },
    });
    expect((await broker.api<Explained>('GET', `${path}?agent_id=${agent.id}`)).body.status.agent_id).toBe(agent.id);
    expect(await broker.api('GET', `${path}?agent_id=${agent.id}&page_token=%21`)).toMatchObject({
      body: { code: 'invalid_page_token' },
    });
  });

  it('ends after 20 s without an answer; one that was left behind is removed by maintenance', async () => {
    const { agent } = await publish();
    using client = await connect(broker.url, agent.pak);
    const clock = new FakeClock();
    const [db, log] = [broker.db, createLog('test', { level: 'fatal' })];
    const questions = new Questions({ db, clock, log, newId: randomUUID, replicaId: randomUUID(), session: () => undefined });
    const body = {
      case: 'explain' as const,
      value: { $typeName: 'brokkr.v1.ExplainQuery' as const, stackId: '', limit: 1, after: '' },
    };
    const asked = questions.ask(agent.id, body, { keyId: randomUUID(), signal: new AbortController().signal });
    await client.take('query'); // it is stored, and waited for
    const untilMs = clock.now() + 20_000;
    await clock.advance(20_000);
    expect(await asked).toMatchObject({ kind: 'silent', untilMs });
    expect(await rows(agent.id)).toBe(0);
    await db.query(
      `insert into agent_query (id, agent_id, asked_by, query, deadline) values ($1, $2, $1, '', now() - interval '1 second')`,
      [randomUUID(), agent.id],
    );
    expect(await forgetQuestions(db)).toBe(1);
  });
});
