import { STACK_LABEL } from '../../agent/stack-identity.ts';
import { freePort } from '../../hack/kube/ports.ts';
import { systemClock } from '../../lib/clock.ts';
import { mintKey } from '../../lib/pak.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import { testDatabase } from '../postgres.ts';
import { startAgent, startBroker, type TestBroker, type TestProcess, temporaryDirectory } from '../processes.ts';
import { brokenDocument, documentOf, foreignApply, type Json, tamperPatch } from './documents.ts';
import { type Item, itemPath, NAMESPACES, type StackItems } from './items.ts';
import type { Meddling, Operation, Program, StackState } from './operations.ts';

const LABEL = 'soak';
const FINALIZER = 'soak.example.com/hold';
/** A program that was started anew takes this long at most until it serves. */
const START_TIMEOUT_MS = 90_000;
/** Somebody else's requests are not repeated; a server that does not answer in this time is away. */
const MEDDLING_TIMEOUT_MS = 10_000;

/** The real parts of a soak: a control plane, a broker and an agent of its own. */
export interface World extends AsyncDisposable {
  readonly kube: OwnKube;
  readonly agentId: string;
  readonly agentNamespace: string;
  /** Name of the agent's user, for the audit log. */
  readonly agentUser: string;
  /** Carries out an operation. What the operator does to the cluster may fail (the server is away, the object is not there): then nothing happened. */
  perform(operation: Operation, signal: AbortSignal): Promise<void>;
  /** REST of the broker as admin; asks again while there is no answer, for as long as a start may take. */
  api<T>(
    method: string,
    path: string,
    body: unknown,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly body: T }>;
  /** Ids of the stacks that exist. */
  readonly stackIds: ReadonlyMap<StackItems, string>;
  /** Last lines of the agent's log. */
  agentLog(): readonly string[];
}

/** Starts it. */
export async function openWorld(): Promise<World> {
  const kube = await startOwnKube({ withControllers: true });
  const agentNamespace = 'soak-agent';
  for (const name of [...NAMESPACES, agentNamespace]) await kube.request('POST', '/api/v1/namespaces', { metadata: { name } });
  const identity = await kube.identity('agent', { clusterAdmin: true });
  const broker = await openBroker();
  const created = await broker.current().api<{ agent: { id: string }; initial_pak: string }>('POST', '/api/v1/agents', {
    name: LABEL,
    cluster_name: LABEL,
    labels: [LABEL],
  });
  const { agent: record, initial_pak: pak } = created.body;
  const agent = openAgent({
    brokerUrl: broker.current().url,
    pak,
    kubeconfigPath: identity.kubeconfigPath,
    namespace: agentNamespace,
  });
  await agent.start();
  const stackIds = new Map<StackItems, string>();
  const programs: Readonly<Record<Program, { kill(): Promise<unknown>; start(): Promise<unknown> }>> = {
    agent,
    broker,
    'API server': {
      kill: () => kube.controlPlane.killApiServer(),
      start: () => kube.controlPlane.startApiServer(AbortSignal.timeout(START_TIMEOUT_MS)),
    },
  };
  const api: World['api'] = async (method, path, body, signal) => {
    using deadline = systemClock.deadline(START_TIMEOUT_MS, signal);
    for (;;) {
      try {
        return await broker.current().api(method, path, body);
      } catch {
        await systemClock.sleep(200, deadline.signal);
      }
    }
  };
  return {
    kube,
    agentId: record.id,
    agentNamespace,
    agentUser: identity.user,
    stackIds,
    api,
    agentLog: agent.log,
    async perform(operation, signal) {
      switch (operation.kind) {
        case 'publish':
          stackIds.set(operation.stack, await publish(api, operation.stack, operation.state, signal));
          return;
        case 'delete stack': {
          const id = stackIds.get(operation.stack);
          stackIds.delete(operation.stack);
          const { status } = await api('DELETE', `/api/v1/stacks/${id}`, undefined, signal);
          if (status !== 204 && status !== 404) throw new Error(`stack ${operation.stack.name} not deleted: ${status}`);
          return;
        }
        case 'meddle':
          await meddle(kube, operation.item, operation.how).catch(() => undefined);
          return;
        case 'release holds':
          await releaseHolds(kube).catch(() => undefined);
          return;
        case 'kill':
          await programs[operation.program].kill();
          return;
        case 'start':
          await programs[operation.program].start();
          return;
      }
    },
    async [Symbol.asyncDispose]() {
      await agent.kill();
      await broker.kill();
      await kube[Symbol.asyncDispose]();
    },
  };
}

/** A broker process on one port and one database, over several lives. */
async function openBroker() {
  const { url: databaseUrl } = await testDatabase();
  const port = await freePort();
  const adminKey = mintKey();
  const start = () => startBroker({ databaseUrl, port, adminKey });
  let running: TestBroker = await start();
  return {
    current: () => running,
    kill: () => running.stop('SIGKILL'),
    async start() {
      running = await start();
    },
  };
}

/** An agent process with one data directory, over several lives. */
function openAgent(settings: Omit<Parameters<typeof startAgent>[0], 'dataDir'>) {
  let running: TestProcess | undefined;
  let dataDir: string | undefined;
  const earlier: string[] = [];
  return {
    log: () => [...earlier, ...(running?.log ?? []).map((line) => JSON.stringify(line))].slice(-40),
    async kill() {
      earlier.push(...(running?.log ?? []).slice(-20).map((line) => JSON.stringify(line)));
      earlier.splice(0, earlier.length - 40);
      await running?.stop('SIGKILL');
      running = undefined;
    },
    async start() {
      dataDir ??= await temporaryDirectory();
      running = await startAgent({ ...settings, dataDir });
    },
  };
}

async function publish(api: World['api'], stack: StackItems, state: StackState, signal: AbortSignal): Promise<string> {
  const documents = [...state.wanted].map(([item, revision]) => documentOf(item, revision));
  const all: Json[] = state.broken ? [...documents, brokenDocument(stack.name)] : documents;
  const { status, body } = await api<{ stack: { id: string } }>(
    'PUT',
    `/api/v1/stacks/by-name/${stack.name}/apply`,
    {
      yaml_content: all.map((document) => JSON.stringify(document)).join('\n---\n'), // JSON is YAML
      labels: { values: state.targeted ? [LABEL] : [] },
      options: { paused: state.paused, approve_deletes: stack.approves ? 100 : 0 },
    },
    signal,
  );
  if (status !== 200) throw new Error(`stack ${stack.name} not published: ${status} ${JSON.stringify(body)}`);
  return body.stack.id;
}

async function meddle(kube: OwnKube, item: Item, how: Meddling): Promise<void> {
  const path = itemPath(item);
  const within = AbortSignal.timeout(MEDDLING_TIMEOUT_MS);
  const send = (method: string, to: string, body: unknown, type: string) =>
    kube.controlPlane.request({ method, path: to, body, headers: { 'content-type': type } }, within);
  const merge = (body: Json) => send('PATCH', `${path}?fieldManager=kubectl-edit`, body, 'application/merge-patch+json');
  switch (how) {
    case 'tamper':
      await merge(tamperPatch(item));
      return;
    case 'foreign apply':
      if ((await kube.request('GET', path)).status !== 200) return; // an apply would create it
      await send('PATCH', `${path}?fieldManager=foreign&force=true`, foreignApply(item), 'application/apply-patch+yaml');
      return;
    case 'delete':
      await kube.request('DELETE', path);
      return;
    case 'replace by a stranger':
      await kube.request('DELETE', path);
      await kube.request('POST', itemPath(item, true), documentOf(item, 0));
      return;
    case 'remove the label':
      await merge({ metadata: { labels: { [STACK_LABEL]: null } } });
      return;
    case 'wipe the managers':
      await merge({ metadata: { managedFields: [{}] } });
      return;
    case 'scale':
      // as kubectl does: what anybody else sets there is an autoscaler's and stays (docs/apply.md)
      await send('PATCH', `${path}/scale?fieldManager=kubectl`, { spec: { replicas: 4 } }, 'application/merge-patch+json');
      return;
    case 'hold':
      await merge({ metadata: { finalizers: [FINALIZER] } });
      await kube.request('DELETE', path);
      return;
  }
}

async function releaseHolds(kube: OwnKube): Promise<void> {
  const { body } = await kube.request('GET', '/api/v1/configmaps');
  for (const { metadata } of body.items as { metadata: { namespace: string; name: string; finalizers?: string[] } }[]) {
    if (!metadata.finalizers?.includes(FINALIZER)) continue;
    await kube.request(
      'PATCH',
      `/api/v1/namespaces/${metadata.namespace}/configmaps/${metadata.name}`,
      { metadata: { finalizers: null } },
      { 'content-type': 'application/merge-patch+json' },
    );
  }
}
