import { create, equals } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type AgentFacts,
  AgentFactsSchema,
  type BucketDigests,
  type BucketEntries,
  BucketEntriesSchema,
  type Hello,
  HelloSchema,
  type Ping,
  PingSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import type { HeldState } from './held.ts';
import type { Outbox } from './outbox.ts';
import type { Reports } from './reports.ts';

/** Protocol versions this agent speaks. */
const VERSIONS = [1];
/** Entries in one frame: about 130 bytes each, well below the size of a frame. */
const ENTRIES_PER_FRAME = 1000;

/** What the agent says about itself. */
export interface SelfDescription {
  /** Random per installation. */
  readonly installId: string;
  /** Random per process start. */
  readonly processId: string;
  readonly startedAtMs: number;
  readonly version: string;
  readonly clusterUid: string;
  /** As known now. */
  facts(): AgentFacts;
  /** The last look at the API server; undefined before the first. */
  kubernetes(): { readonly reachable: boolean; readonly latencyMs: number } | undefined;
}

interface Parts {
  readonly self: SelfDescription;
  readonly held: HeldState;
  readonly outbox: Outbox;
  readonly reports: Reports;
}

/** Opens a session with what the agent holds. */
export function helloOf({ self, held, outbox }: Parts): Hello {
  return create(HelloSchema, {
    versions: VERSIONS,
    installId: self.installId,
    clusterUid: self.clusterUid,
    processId: self.processId,
    processStartedAt: timestampFromMs(self.startedAtMs),
    agentVersion: self.version,
    facts: self.facts(),
    resume: { ...held.summary(), bootId: outbox.bootId, lastEventSeq: outbox.lastSeq },
  });
}

/** A heartbeat with what the agent holds now, and with the facts about it when they are other ones than `told`. */
export function pingOf({ self, held, outbox, reports }: Parts, told: AgentFacts | undefined): Ping {
  const facts = self.facts();
  const { revision, rootDigest, entries } = held.summary();
  const kubernetes = self.kubernetes();
  return create(PingSchema, {
    ...(revision && { revision }),
    rootDigest,
    entries,
    failing: reports.failing,
    pendingEvents: outbox.pending,
    ...(!(told && equals(AgentFactsSchema, told, facts)) && { facts }),
    ...(kubernetes && { kubernetesReachable: kubernetes.reachable, kubernetesLatencyMs: Math.round(kubernetes.latencyMs) }),
  });
}

/** The agent's entries in the buckets that differ, in as many frames as it takes, at least one. */
export function bucketFrames(held: HeldState, { digests }: BucketDigests): BucketEntries[] {
  const buckets = held.differing(digests);
  const entries = held.entries(buckets);
  const frames: BucketEntries[] = [];
  for (let start = 0; start === 0 || start < entries.length; start += ENTRIES_PER_FRAME) {
    const more = start + ENTRIES_PER_FRAME < entries.length;
    frames.push(create(BucketEntriesSchema, { buckets, entries: entries.slice(start, start + ENTRIES_PER_FRAME), more }));
  }
  return frames;
}
