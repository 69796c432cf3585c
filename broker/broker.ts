import type { ConnectRouter } from '@connectrpc/connect';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { createMetrics } from '#lib/metrics.ts';
import type { Task } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import { countSpans, type Telemetry } from '#lib/telemetry.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { AdminService } from '#proto/brokkr/v1/admin_pb.js';
import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { AgentSync } from '#proto/brokkr/v1/sync_pb.js';
import { WebhookService } from '#proto/brokkr/v1/webhooks_pb.js';
import { adminService } from './admin/rpc.ts';
import { agentService } from './agents/rpc.ts';
import { createPipeline } from './api/command.ts';
import { createRequestGate } from './api/gate.ts';
import { createApiInterceptors } from './api/interceptors.ts';
import type { BrokerConfig } from './config.ts';
import type { Database } from './database.ts';
import { Fleet } from './fleet/fleet.ts';
import { generatorService } from './generators/rpc.ts';
import { createServer, type Server } from './http/server.ts';
import { Authenticator } from './keys/authenticate.ts';
import { keyService } from './keys/rpc.ts';
import { createMaintenance } from './maintenance/maintenance.ts';
import { declareBrokerMetrics } from './metrics.ts';
import { healthz, metricsPage, readyz } from './probes.ts';
import type { SealingKey } from './sealing.ts';
import { createBlobStore } from './stacks/blobs.ts';
import { stackService } from './stacks/rpc.ts';
import { Blobs } from './sync/blobs.ts';
import { ChangeFeed } from './sync/feed.ts';
import { Ingest } from './sync/ingest.ts';
import { Questions } from './sync/questions.ts';
import { syncService } from './sync/rpc.ts';
import { StatusChanges } from './sync/status-changes.ts';
import { confirmHistory } from './sync/store.ts';
import { sessionMethod } from './sync/stream.ts';
import { Sync } from './sync/sync.ts';
import { Gatekeeper } from './targeting/gatekeeper.ts';
import { webhookService } from './webhooks/rpc.ts';
import { createSecretBox } from './webhooks/secrets.ts';
import { createSending } from './webhooks/sending.ts';

/** What a broker is built on. */
export interface BrokerDeps {
  readonly db: Database;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: () => number;
  readonly newId: () => string;
  readonly version: string;
  /** Undefined while no traces are made. */
  readonly telemetry?: Telemetry | undefined;
}

/** A broker, built and not started. */
export interface Broker {
  /** Run until the abort. The server drains first: it stops taking calls, then the rest ends. */
  readonly tasks: readonly Task[];
  readonly server: Server;
  /** Dispose after the tasks have ended. */
  readonly yaml: YamlPool;
}

/** Everything the broker serves over RPC and REST. */
export const SERVICES = [
  AdminService,
  AgentService,
  AgentSync,
  GeneratorService,
  KeyService,
  StackService,
  WebhookService,
] as const;

/** Longest poll. */
const MAX_POLL_HOLD_MS = 25_000;
/** Largest frame to an agent, and frames ahead of its acknowledgement. */
const FRAMES = { maxFrameBytes: 256 * 1024, windowFrames: 256 } as const;
/** Publications that wait to be parsed; more are refused with `too_many_requests`. Their texts have been read already. */
const MAX_WAITING_TEXTS = 1000;
/** Around a published text: the other fields, and JSON escapes of the text. */
const PUBLISH_OVERHEAD = 2;

/** Builds all parts of a broker. */
export function createBroker(config: BrokerConfig, deps: BrokerDeps): Broker {
  const { db, log, clock } = deps;
  const stopping = new AbortController();
  const feed = new ChangeFeed({ db, clock, log });
  const yaml = createYamlPool({ maxThreads: config.broker.yamlThreads, maxQueue: MAX_WAITING_TEXTS }, clock);
  const keys = sealingKeys(config);
  const blobs = createBlobStore(keys);
  const secrets = createSecretBox(keys);
  const statusChanges = new StatusChanges(clock);
  const authenticator = new Authenticator({ db, clock, log }, { cacheTtlMs: config.broker.authCacheTtlSeconds * 1000 });
  const registry = createMetrics({ processMetrics: true });
  countSpans(registry, deps.telemetry);
  const fleet = new Fleet({ db, clock, log });
  const metrics = declareBrokerMetrics(registry, {
    poolUse: () => db.poolUse(),
    sessions: () => sync.sessions(),
    pendingEvents: () => ingest.pendingEvents,
    yaml,
    listener: () => server.counts(),
    webhookAttempts: () => sending.deliveries.inFlight,
    fleet: () => fleet.counts(),
    clock,
  });
  const ingest: Ingest = new Ingest({
    db,
    clock,
    log,
    changed: (stackIds) => statusChanges.changed(stackIds),
    delivered: metrics.delivered,
  });
  const acceptance = config.broker.agentAcceptance;
  const pollHoldMs = Math.min(config.broker.pollHoldMs, MAX_POLL_HOLD_MS);
  const replicaId = deps.newId();
  const session = (agentId: string) => sync.session(agentId);
  const questions = new Questions({ db, clock, log, newId: deps.newId, replicaId, session });
  const sync: Sync = new Sync(
    {
      ...{ db, feed, blobs, ingest, questions, clock, log, random: deps.random, metrics },
      forgetKeys: () => authenticator.forget(),
      webhookTurn: (from, turn) => sending.agentDeliveries.turn(from, turn),
    },
    { ...config.broker, replicaId, version: deps.version, acceptance, ...FRAMES, pollHoldMs },
  );
  const gatekeeper = new Gatekeeper({ db, clock, log, committed: () => feed.committed() });
  feed.subscribe((changes) => {
    if (changes.some(({ kind }) => kind === 'stack')) gatekeeper.headsChanged();
    return Promise.resolve();
  });
  const sending = createSending(config, {
    ...{ db, clock, log, random: deps.random, replicaId, secrets, session },
    attempted: metrics.attempted,
    lookedUp: (seconds) => metrics.dnsSeconds.observe(seconds),
  });
  const pipeline = createPipeline({
    db,
    committed: (changes) => {
      // this replica forgets at once; the others when the feed tells them
      if (changes.some(({ kind }) => kind === 'key' || kind === 'agent')) authenticator.forget();
      feed.committed();
    },
  });
  const limits = { textBytes: config.broker.maxPublishBytes, documents: config.broker.maxDocuments };
  const router = (connect: ConnectRouter) => {
    connect.service(
      AgentSync,
      syncService({ sync, blobs: new Blobs({ db, blobs, heads: sync.heads }), clock, stopping: stopping.signal }),
    );
    connect.service(
      StackService,
      stackService({ pipeline, db, clock, statusChanges, questions, yaml, blobs }, { acceptance, limits }),
    );
    connect.service(AgentService, agentService(pipeline, { acceptance, heartbeatIntervalMs: config.broker.heartbeatIntervalMs }));
    connect.service(GeneratorService, generatorService(pipeline));
    connect.service(KeyService, keyService(pipeline));
    connect.service(WebhookService, webhookService(pipeline, { secrets, send: sending.send, clock, newId: deps.newId }));
    connect.service(
      AdminService,
      adminService(pipeline, {
        connections: () => connections(sync),
        confirmHistory: (tx, incarnation) => confirm(tx, incarnation),
      }),
    );
  };
  const publishBytes = config.broker.maxPublishBytes * PUBLISH_OVERHEAD;
  const server: Server = createServer(
    {
      router,
      interceptors: createApiInterceptors(),
      requestGate: createRequestGate(),
      authenticate: (headers) => authenticator.authenticate(headers.get('authorization') ?? undefined),
      services: SERVICES,
      hot: [sessionMethod(sync, log)],
      plain: {
        '/healthz': healthz,
        '/readyz': readyz({ db, clock }),
        ...(config.broker.metrics && { '/metrics': metricsPage(registry) }),
      },
      log,
      clock,
      newId: deps.newId,
      observe: metrics.served,
    },
    {
      listen: config.broker.listen,
      tls: tlsFiles(config),
      reflection: config.broker.reflection,
      limits: {
        methodBytes: {
          '/brokkr.v1.StackService/Apply': publishBytes,
          '/brokkr.v1.StackService/CreateDeploymentObject': publishBytes,
        },
      },
    },
  );
  const stop: Task = {
    name: 'stop',
    async run(signal) {
      await aborted(signal);
      stopping.abort(signal.reason);
    },
  };
  const tasks = [
    stop,
    server,
    feed,
    sync,
    ingest,
    questions,
    gatekeeper,
    authenticator,
    sending.deliveries,
    createMaintenance(deps, { webhookRetentionDays: config.broker.webhookCleanupRetentionDays }),
  ];
  return { tasks, server, yaml };
}

async function confirm(tx: Parameters<typeof confirmHistory>[0], incarnation: string | undefined): Promise<string> {
  const confirmed = await confirmHistory(tx, incarnation);
  if (confirmed === undefined) throw new BrokkrError('precondition_failed', `incarnation ${incarnation} is not the present one`);
  return confirmed;
}

function connections(sync: Sync) {
  return sync.sessions().map((session) => ({
    agentId: session.options.agentId,
    connectedSinceMs: session.options.connectedAtMs,
    messagesIn: Number(session.frames.taken),
    messagesOut: Number(session.frames.seq),
    transport: session.options.transport,
    epoch: session.options.epoch,
  }));
}

/** The key that encrypts comes first; without it there are no old ones either (`loadBrokerConfig`). */
function sealingKeys({ broker }: BrokerConfig): readonly SealingKey[] {
  const old = broker.encryptionOldKeys.map((text) => {
    const [keyId = '', hex = ''] = text.split('=');
    return { keyId, key: Buffer.from(hex, 'hex') };
  });
  if (broker.encryptionKey === undefined) return [];
  return [{ keyId: broker.encryptionKeyId, key: Buffer.from(broker.encryptionKey, 'hex') }, ...old];
}

function tlsFiles({ tls }: BrokerConfig) {
  return tls.cert === undefined || tls.key === undefined ? undefined : { certFile: tls.cert, keyFile: tls.key };
}
