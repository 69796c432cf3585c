import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clone, create } from '@bufbuild/protobuf';
import { systemClock } from '#lib/clock.ts';
import { entryDigest, manifestDigest, RootDigest } from '#lib/digest.ts';
import { createLog } from '#lib/log.ts';
import { createMetrics } from '#lib/metrics.ts';
import { compareEntries, type ManifestEntry, sourceDigest } from '#lib/object.ts';
import {
  type AgentFacts,
  AgentFactsSchema,
  AnswerSchema,
  AttemptEventSchema,
  type SessionConfig,
  type Upsert,
  UpsertSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import { createAgentMetrics } from '../agent/metrics.ts';
import { Content } from '../agent/session/content.ts';
import { openContentCache } from '../agent/session/content-cache.ts';
import { HeldState } from '../agent/session/held.ts';
import { bytes, toWire } from '../agent/session/manifest.ts';
import { openOutbox } from '../agent/session/outbox.ts';
import { Reports } from '../agent/session/reports.ts';
import { type Session, type SessionDeps, startSession } from '../agent/session/session.ts';
import { WayBacks } from '../agent/session/way-back.ts';
import type { StackTarget, StackTombstone } from '../agent/stack/target.ts';
import type { Endpoint } from '../agent/transport/endpoint.ts';
import { createPollTransport } from '../agent/transport/poll.ts';
import { createStreamTransport } from '../agent/transport/stream.ts';
import type { Tier } from '../agent/transport/wire.ts';
import { createWebhooks } from '../agent/webhooks.ts';

/** Everything of an agent but the engine and the cluster, whose place two lists take. */
export interface AgentSide extends AsyncDisposable {
  readonly deps: SessionDeps;
  readonly offers: StackTarget[];
  readonly withdrawals: StackTombstone[];
  readonly configs: (SessionConfig | undefined)[];
  /** What the agent knows of its cluster; a test may change it. */
  readonly facts: AgentFacts;
  readonly dir: string;
  readonly endpoint: Endpoint;
  /** Dials. The session ends with `signal` or with the whole. */
  start(tier: Tier, signal?: AbortSignal): Session;
}

/** The agent's side of the wire towards the broker at `url`, with real transports, outbox and cache. */
export async function startAgentSide(url: string, ca?: readonly string[]): Promise<AgentSide> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-agent-side-'));
  const stop = new AbortController();
  const log = createLog('test', { level: 'fatal' });
  const clock = systemClock;
  const held = new HeldState();
  const outbox = await openOutbox({ log, newId: randomUUID }, { dir }, stop.signal);
  const reports = new Reports({ held, outbox });
  const cache = await openContentCache(join(dir, 'blobs'), { log });
  const content = new Content({
    cache,
    wayBacks: new WayBacks({ dir: join(dir, 'way-back'), log }),
    manifestOf: (stackId) => held.newestManifest(stackId),
    log,
  });
  const offers: StackTarget[] = [];
  const withdrawals: StackTombstone[] = [];
  const configs: (SessionConfig | undefined)[] = [];
  const facts = create(AgentFactsSchema, { clusterWide: true });
  const endpoint: Endpoint = { url: new URL(url), pak: 'brokkr_BRtest_key', ca, proxy: undefined };
  endpoint.url.pathname = '';
  const readEndpoint = async () => endpoint;
  const webhooks = createWebhooks(clock, ['127.0.0.0/8']);
  const sending = webhooks.run(stop.signal);
  const deps: SessionDeps = {
    held,
    reports,
    outbox,
    content,
    engine: { offer: (target) => offers.push(target), withdraw: (tombstone) => withdrawals.push(tombstone) },
    webhooks,
    questions: { answer: async ({ id }) => create(AnswerSchema, { id, body: { case: 'failure', value: 'asked in a test' } }) },
    admit: () => true,
    configured: (config) => configs.push(config),
    self: {
      installId: 'install',
      processId: 'process',
      startedAtMs: clock.now(),
      version: '0.0.0',
      clusterUid: 'cluster',
      facts: () => clone(AgentFactsSchema, facts),
      kubernetes: () => ({ reachable: true, latencyMs: 3 }),
    },
    metrics: createAgentMetrics(createMetrics({ processMetrics: false }), systemClock, () => undefined),
    clock,
    log,
    random: () => 0.5,
  };
  const transports = {
    stream: createStreamTransport({ readEndpoint, clock }),
    poll: createPollTransport({ readEndpoint, clock }, { holdMs: 10_000 }),
  };
  const sessions: Session[] = [];
  return {
    deps,
    offers,
    withdrawals,
    configs,
    facts,
    dir,
    endpoint,
    start(tier, signal = stop.signal) {
      const session = startSession(transports[tier], deps, AbortSignal.any([signal, stop.signal]));
      sessions.push(session);
      return session;
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('test over'));
      await Promise.all(sessions.map(({ ended }) => ended));
      await sending;
      await content.stored();
      await outbox[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    },
  };
}

/** A stack with one ConfigMap a name, as a broker would publish it. */
export function stackOf(stackId: string, generation: bigint, names: readonly string[], kind = 'ConfigMap') {
  const documents = new Map<string, string>();
  const entries = names.map((name): ManifestEntry => {
    const document = `apiVersion: v1\nkind: ${kind}\nmetadata:\n  name: ${name}\n`;
    const source = sourceDigest(document);
    documents.set(source, document);
    const key = { group: '', version: 'v1', kind, namespace: '', name };
    return {
      ...key,
      objectDigest: sourceDigest(`salted ${document}`),
      sourceDigest: source,
      size: document.length,
      wave: 0,
      item: 0,
    };
  });
  const manifest = entries.sort(compareEntries);
  const digest = Uint8Array.from(manifestDigest(manifest));
  const optionsDigest = new Uint8Array(32).fill(7);
  const bare = {
    stackId,
    stackName: `stack-${stackId.slice(0, 4)}`,
    generation,
    manifestDigest: digest,
    optionsDigest,
    salt: new Uint8Array(16),
  };
  const inline: Upsert = create(UpsertSchema, { ...bare, manifest: toWire(manifest) });
  const blobs = [...documents].map(([key, text]) => ({
    $typeName: 'brokkr.v1.Blob' as const,
    digest: bytes(key),
    data: Uint8Array.from(Buffer.from(text)),
  }));
  return {
    manifest,
    documents,
    bare: create(UpsertSchema, bare),
    inline,
    blobs,
    digest,
    entry: entryDigest(stackId, generation, digest, optionsDigest),
  };
}

/** The root digest of entries. */
export function rootOf(entries: readonly (readonly [stackId: string, digest: Uint8Array])[]): Uint8Array<ArrayBuffer> {
  const root = new RootDigest();
  for (const [stackId, digest] of entries) root.set(stackId, digest);
  return Uint8Array.from(root.root());
}

/** An outcome without particulars. */
export function eventOf(attemptId: string) {
  return create(AttemptEventSchema, {
    attemptId,
    stackId: '00000000-0000-4000-8000-000000000001',
    eventType: 'APPLY',
    success: true,
  });
}

/** Waits until `condition` holds; the test's own timeout ends it. */
export async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => setTimeout(resolve, 5));
}
