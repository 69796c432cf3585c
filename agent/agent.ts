import { lookup } from 'node:dns/promises';
import { join } from 'node:path';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { HealthServer } from '#lib/health-server.ts';
import type { Logger } from '#lib/log.ts';
import { createMetrics } from '#lib/metrics.ts';
import { runTasks, type Task } from '#lib/run.ts';
import { abortable } from '#lib/signal.ts';
import { countSpans, type Telemetry } from '#lib/telemetry.ts';
import { createYamlPool } from '#lib/yaml-pool.ts';
import { createBrokerWatch } from './broker-watch.ts';
import { configuredCapabilities } from './capabilities.ts';
import { identifyCluster, openCluster } from './cluster.ts';
import type { AgentConfig } from './config.ts';
import { Questions } from './explain/questions.ts';
import { ClusterFacts } from './facts.ts';
import { type Identity, keyDigest, loadIdentity, saveIdentity, untilDone } from './identity.ts';
import { inCluster } from './kube/in-cluster.ts';
import type { Kube } from './kube/kube.ts';
import { elect, LeadershipLostError } from './leader.ts';
import { type AgentGauges, createAgentMetrics } from './metrics.ts';
import { engineObserver, linkObserver } from './observe.ts';
import { createReach } from './reach.ts';
import { openReconciler, type Reconciler } from './reconcile.ts';
import { EnvironmentRules } from './rules.ts';
import { Content } from './session/content.ts';
import { openContentCache } from './session/content-cache.ts';
import { HeldState } from './session/held.ts';
import { createLinks, type Links } from './session/links.ts';
import { openOutbox } from './session/outbox.ts';
import { Reports } from './session/reports.ts';
import type { SessionDeps } from './session/session.ts';
import { Supervisor } from './session/supervisor.ts';
import { WayBacks } from './session/way-back.ts';
import { AgentView } from './view.ts';
import { createWebhooks } from './webhooks.ts';

/** Where the inventory is unless the agent runs in a pod or is told. */
const DEFAULT_NAMESPACE = 'brokkr-agent';
const DEFAULT_HEALTH_MS = 60_000;
/** Documents go to the disk cache this long after they came: a sync in the meantime has the disk and the cores for itself. */
const CACHE_DELAY_MS = 5_000;
/** An idle YAML thread costs 60 to 80 MiB after a large sync, and 150 to 300 ms when it is needed again. */
const YAML_IDLE_MS = 30_000;

/** What an agent needs from its surroundings. */
export interface AgentDeps {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: () => number;
  readonly newId: () => string;
  /** Threads for YAML work at most. */
  readonly threads: number;
  readonly version: string;
  /** Directory of this process alone. */
  readonly dataDir: string;
  /** Undefined while no traces are made. */
  readonly telemetry?: Telemetry | undefined;
}

/** A built agent. */
export interface Agent {
  readonly tasks: Task[];
  readonly health: HealthServer;
}

/** Builds an agent; nothing runs before its tasks do. The health port opens first, so that it can say what the start waits for. */
export function createAgent(config: AgentConfig, deps: AgentDeps): Agent {
  const { log } = deps;
  const metrics = createMetrics({ processMetrics: true });
  const view = new AgentView();
  let gauges: AgentGauges | undefined;
  const agentMetrics = createAgentMetrics(metrics, deps.clock, () => (view.isStandby ? 'standby' : gauges));
  countSpans(metrics, deps.telemetry);
  const health = new HealthServer({ metrics, view, log }, { host: config.agent.healthHost, port: config.agent.healthPort });
  const links = createLinks(config, deps, agentMetrics);
  const parts: Parts = { config, deps, view, metrics: agentMetrics, links, expose: (value) => (gauges = value) };
  const watch = createBrokerWatch({ ...deps, lookup, readEndpoint: links.readEndpoint, metrics: agentMetrics });
  return { health, tasks: [health, watch, { name: 'agent', run: (signal) => runAgent(parts, signal) }] };
}

interface Parts {
  readonly config: AgentConfig;
  readonly deps: AgentDeps;
  readonly view: AgentView;
  readonly metrics: ReturnType<typeof createAgentMetrics>;
  readonly links: Links;
  readonly expose: (gauges: AgentGauges) => void;
}

async function runAgent(parts: Parts, signal: AbortSignal): Promise<void> {
  try {
    await serve(parts, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Works whenever this replica leads. */
async function serve(parts: Parts, signal: AbortSignal): Promise<void> {
  const { config, deps, view, links } = parts;
  await using kube = await openCluster(config.agent.kubeconfigPath, { ...deps, view, metrics: parts.metrics }, signal);
  const namespace = config.agent.namespace ?? (inCluster(deps.env) ? kube.namespace : undefined) ?? DEFAULT_NAMESPACE;
  const place = { kube, namespace };
  const { installId } = await loadIdentity(deps.dataDir, deps.newId);
  const job: Task = { name: 'work', run: (inner) => work(parts, place, inner) };
  for (;;) {
    const readKey = async () => (await links.readEndpoint()).pak;
    const leader = await elect({ ...deps, kube, view, readKey }, { ...config.agent, namespace, installId }, signal);
    view.starting('starting');
    try {
      await runTasks(leader ? [leader, job] : [job], signal);
      return;
    } catch (error) {
      if (!(error instanceof LeadershipLostError)) throw error;
      deps.log.warn({ error: error.message }, 'another replica took over');
    } finally {
      await leader?.release(); // only now: what was being written is written
    }
  }
}

async function work(
  parts: Parts,
  { kube, namespace }: { readonly kube: Kube; readonly namespace: string },
  signal: AbortSignal,
): Promise<void> {
  const { config, deps, view } = parts;
  const { log, clock, newId } = deps;
  const facts = new ClusterFacts(
    { kube, clock },
    {
      clusterWide: config.agent.watchNamespace === undefined,
      capabilities: {
        ...configuredCapabilities(config.agent.capabilities),
        agent_name: config.agent.agentName,
        cluster_name: config.agent.clusterName,
      },
    },
  );
  const looking = facts.look(signal); // beside the rest of the start
  const retry = { ...deps, waiting: (problem: string) => view.starting(problem) };
  let identity = await loadIdentity(deps.dataDir, newId);
  identity = await identifyCluster(identity, kube, retry, deps.dataDir, signal);
  await using outbox = await openOutbox({ log, newId }, { dir: deps.dataDir }, signal);
  const held = new HeldState();
  const reports = new Reports({ held, outbox });
  const cache = await openContentCache(join(deps.dataDir, 'blobs'), { log });
  const settled = () => clock.sleep(CACHE_DELAY_MS, signal).catch(() => undefined);
  const wayBacks = new WayBacks({ dir: join(deps.dataDir, 'way-back'), log });
  const content = new Content({ cache, wayBacks, manifestOf: (stackId) => held.newestManifest(stackId), log, settled });
  await looking;
  const self = {
    ...{ installId: identity.installId, clusterUid: identity.clusterUid, processId: newId() },
    ...{ startedAtMs: clock.now(), version: deps.version, facts: () => facts.facts(), kubernetes: () => facts.seen },
  };
  const webhooks = createWebhooks(clock, config.agent.webhookAllowedNetworks);
  const common = { held, reports, outbox, content, webhooks, self, metrics: parts.metrics, clock, log, random: deps.random };
  identity = await identifyAgent(identity, common, parts, signal);
  const { agentId } = identity;

  await using yaml = createYamlPool({ maxThreads: deps.threads, idleTimeoutMs: YAML_IDLE_MS }, clock);
  const rules = new EnvironmentRules(
    { yaml, clock, log, changed: () => reconciler.rulesChanged() },
    { path: config.agent.rulesFile },
  );
  const reconciler = openReconciler(
    {
      kube,
      yaml,
      content,
      report: reports,
      reach: createReach(parts.links, kube),
      clock,
      log,
      random: deps.random,
      newId,
      needTarget: (stackId) => reports.need(stackId),
      rules: () => rules.current(),
      observe: engineObserver(parts.metrics),
    },
    {
      ...{ agentId, namespace, credential: identity.keyDigest, clusterWide: config.agent.watchNamespace === undefined },
      ...{ defaultNamespace: config.agent.watchNamespace ?? 'default', concurrency: config.agent.concurrency },
      verifyIntervalMs: config.agent.verifyIntervalMs,
    },
  );
  reconciler.healthIntervalMs = config.agent.deploymentHealthIntervalMs;
  await rules.load(signal);
  held.load(await untilDone('reading the inventories', () => reconciler.load(signal), retry, signal));

  const mistaken = Promise.withResolvers<never>();
  const questions = new Questions({ explain: (query, inner) => reconciler.explain(query, inner), clock, log });
  const supervisor = supervise(parts, reconciler, { ...common, engine: reconciler, questions }, { agentId, mistaken });
  view.running({ supervisor, facts, reports, outbox, rules, engine: reconciler, agentId, namespace });
  parts.expose({
    tier: () => (supervisor.state.kind === 'up' ? supervisor.state.tier : undefined),
    withoutSessionMs: () => supervisor.withoutSessionMs,
    pendingEvents: () => outbox.pending,
    failingStacks: () => reports.failing,
    stacks: () => held.size,
    kubernetesLatency: () => facts.seen && facts.seen.latencyMs / 1000,
    ...{ kube, engine: reconciler, yaml },
  });
  const register: Task = { name: 'registration', run: (inner) => registerAll(parts, inner) };
  const selfCheck: Task = { name: 'identity', run: (inner) => checkSelf(mistaken.promise, identity, deps.dataDir, inner) };
  await runTasks([supervisor, reconciler, facts, rules, webhooks, register, selfCheck], signal);
  await content.stored();
}

/** Finds out whom the key belongs to, unless that is known: opens a session only to read its Welcome. */
async function identifyAgent(
  identity: Identity,
  common: Omit<SessionDeps, 'engine' | 'questions' | 'admit' | 'configured'>,
  { deps, config, links, view, metrics }: Parts,
  signal: AbortSignal,
): Promise<Identity> {
  const readKey = async () => keyDigest((await links.readEndpoint()).pak);
  const retry = { ...deps, waiting: (problem: string) => view.starting(problem) };
  const digest = await untilDone('reading the key', readKey, retry, signal);
  if (identity.agentId && identity.keyDigest === digest) return identity;
  const found = Promise.withResolvers<string>();
  const stop = new AbortController();
  const nobody = { offer: () => undefined, withdraw: () => undefined, answer: async () => undefined };
  const admit: SessionDeps['admit'] = ({ agentId }) => {
    found.resolve(agentId);
    return false;
  };
  const sessionDeps: SessionDeps = { ...common, engine: nobody, questions: nobody, admit, configured: () => undefined };
  const supervisor = new Supervisor(
    {
      ...deps,
      start: (tier, inner) => links.start(tier, sessionDeps, inner),
      probe: links.probe,
      suspend: (reason) => view.starting(reason),
      resume: () => undefined,
      observe: linkObserver(metrics),
    },
    { transport: config.agent.transport, probeIntervalMs: config.agent.streamProbeIntervalMs },
  );
  view.starting('asking the broker whom the key belongs to', supervisor);
  const run = supervisor.run(AbortSignal.any([signal, stop.signal]));
  const agentId = await abortable(found.promise, signal);
  stop.abort(new Error('the agent knows who it is'));
  await run;
  return saveIdentity(deps.dataDir, { ...identity, agentId, keyDigest: digest });
}

/** Notices that the key has come to mean another agent: nothing held here is that agent's. */
interface SelfCheck {
  readonly agentId: string;
  readonly mistaken: PromiseWithResolvers<never>;
}

function supervise(
  parts: Parts,
  reconciler: Reconciler,
  rest: Omit<SessionDeps, 'admit' | 'configured'>,
  self: SelfCheck,
): Supervisor {
  const { agentId, mistaken } = self;
  const { config, deps, links, metrics } = parts;
  const ownHealthMs = config.agent.deploymentHealthIntervalMs;
  const sessionDeps: SessionDeps = {
    ...rest,
    admit: (welcome) => {
      if (welcome.agentId === agentId) return true;
      mistaken.reject(
        new BrokkrError('agent_id_mismatch', `the key now belongs to agent ${welcome.agentId}, not ${agentId}: start again`),
      );
      return false;
    },
    configured: (settings) => {
      if (!settings) return;
      reconciler.holdDeletions(settings.deletionsHeld);
      // a setting of the agent that somebody changed wins over the broker's
      reconciler.healthIntervalMs = ownHealthMs === DEFAULT_HEALTH_MS ? settings.healthIntervalMs || ownHealthMs : ownHealthMs;
    },
  };
  return new Supervisor(
    {
      ...deps,
      start: (tier, signal) => links.start(tier, sessionDeps, signal),
      probe: links.probe,
      suspend: (reason) => reconciler.suspend(reason),
      resume: () => reconciler.resume(),
      observe: linkObserver(metrics),
    },
    { transport: config.agent.transport, probeIntervalMs: config.agent.streamProbeIntervalMs },
  );
}

async function checkSelf(mistaken: Promise<never>, identity: Identity, dataDir: string, signal: AbortSignal): Promise<void> {
  try {
    await abortable(mistaken, signal);
  } catch (error) {
    if (!signal.aborted) await saveIdentity(dataDir, { ...identity, agentId: '' }); // asked anew by the next start
    throw error;
  }
}

async function registerAll({ config, deps, links, view }: Parts, signal: AbortSignal): Promise<void> {
  const retry = { ...deps, waiting: (problem: string) => view.note(problem) };
  for (const id of config.agent.generatorIds) {
    await untilDone(`registering with generator ${id}`, () => links.register(id, signal), retry, signal);
    deps.log.info({ generator: id }, 'registered with generator');
  }
}
