import { create } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { SpanKind } from '@opentelemetry/api';
import type { Clock } from '#lib/clock.ts';
import { entryDigest, manifestDigest, RootDigest, tombstoneDigest } from '#lib/digest.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { isOpaque, type Manifest } from '#lib/object.ts';
import { noteSpanOf } from '#lib/tracing.ts';
import { ApplyOptionsSchema, Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import {
  type Nack,
  NackCode,
  NackSchema,
  type Revision,
  StackStatusSchema,
  type Tombstone,
  type Upsert,
} from '#proto/brokkr/v1/sync_pb.js';
import { stackAttributes } from '../spans.ts';
import type { StackTarget, StackTombstone } from '../stack/target.ts';
import type { Content } from './content.ts';
import { type HeldState, MAX_STACKS, policyName } from './held.ts';
import { applyDelta, fromWire } from './manifest.ts';
import type { Reports } from './reports.ts';

/** Objects of one deployment object (the design's table of limits). */
const MAX_OBJECTS = 10_000;
/** A manifest that does not match its digest is asked for again after so long, so that a broken one is no busy loop. */
const DIGEST_RETRY_MS = 30_000;
const CONTENT_RETRY_MS = 5_000;
/** Manifests fetched at a time. */
const MAX_FETCHES = 4;

/** The engine, as far as target state concerns it. */
export interface TargetSink {
  offer(target: StackTarget): void;
  withdraw(tombstone: StackTombstone): void;
}

/** What the intake needs. `nack` sends; `fetch` is this session's way to content. */
export interface IntakeDeps {
  readonly held: HeldState;
  readonly content: Content;
  readonly reports: Reports;
  readonly engine: TargetSink;
  readonly clock: Clock;
  readonly log: Logger;
  readonly nack: (nack: Nack) => void;
}

type Staged = { readonly case: 'upsert'; readonly value: Upsert } | { readonly case: 'tombstone'; readonly value: Tombstone };

/** Takes the target state of one session: verifies, remembers, hands to the engine. A newer word about a stack ends the work on an older one. */
export class Intake {
  readonly #deps: IntakeDeps;
  readonly #incarnation: string;
  readonly #signal: AbortSignal;
  /** Stacks whose manifest is being fetched. */
  readonly #fetching = new Map<string, AbortController>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #snapshot: { readonly expected: number; readonly entries: Map<string, Staged> } | undefined;
  #delivered: Revision | undefined;

  constructor(deps: IntakeDeps, incarnation: string, signal: AbortSignal) {
    this.#deps = deps;
    this.#incarnation = incarnation;
    this.#signal = signal;
  }

  /** The broker has delivered everything up to here. */
  delivered(revision: Revision | undefined): void {
    this.#delivered = revision ?? this.#delivered;
    if (this.#fetching.size === 0 && !this.#snapshot) this.#deps.held.reached(this.#incarnation, this.#delivered);
  }

  /** A stack at a generation. */
  upsert(upsert: Upsert): void {
    if (this.#snapshot) this.#snapshot.entries.set(upsert.stackId, { case: 'upsert', value: upsert });
    else this.#take(upsert);
  }

  /** A stack that leaves. */
  tombstone(tombstone: Tombstone): void {
    if (this.#snapshot) this.#snapshot.entries.set(tombstone.stackId, { case: 'tombstone', value: tombstone });
    else this.#bury(tombstone);
  }

  /** A stack the broker does not know: kept. */
  absent(stackId: string): void {
    const { held, reports, log, clock } = this.#deps;
    if (!held.received(stackId)) return;
    this.#supersede(stackId);
    held.setAbsent(stackId);
    log.warn({ stack: stackId }, 'stack is unknown to the broker and kept');
    const message = 'the broker neither assigns nor withdraws this stack: its objects are kept';
    const changedAt = timestampFromMs(clock.now());
    reports.status(create(StackStatusSchema, { stackId, phase: Phase.KEPT, health: Health.UNKNOWN, message, changedAt }));
  }

  /** A full listing begins; staged until its end. */
  beginSnapshot(expected: number): void {
    this.#snapshot = { expected, entries: new Map() };
  }

  /** The listing ended. Returns why it is broken, in which case nothing has changed. */
  endSnapshot(rootDigest: Uint8Array, revision: Revision | undefined): string | undefined {
    const snapshot = this.#snapshot;
    this.#snapshot = undefined;
    if (snapshot) {
      if (snapshot.entries.size !== snapshot.expected) return `${snapshot.entries.size} of ${snapshot.expected} entries came`;
      if (Buffer.compare(rootOf(snapshot.entries), rootDigest) !== 0) return 'the root digest differs';
      for (const entry of snapshot.entries.values()) {
        if (entry.case === 'upsert') this.#take(entry.value);
        else this.#bury(entry.value);
      }
      for (const stackId of this.#deps.held.targets()) if (!snapshot.entries.has(stackId)) this.absent(stackId);
    }
    this.delivered(revision);
    return undefined;
  }

  #bury(tombstone: Tombstone): void {
    const { stackId, stackName, generation, policy, approved, revision, traceparent } = tombstone;
    this.#supersede(stackId);
    const from = { incarnation: this.#incarnation, revision, traceparent };
    const target: StackTombstone = { stackId, stackName, generation, policy, approved, ...from };
    this.#deps.held.bury(target);
    this.#deps.engine.withdraw(target);
  }

  #take(upsert: Upsert): void {
    const { stackId, generation } = upsert;
    this.#supersede(stackId);
    const { held, content } = this.#deps;
    if (!held.received(stackId) && held.size >= MAX_STACKS) {
      this.#nack(upsert, NackCode.LIMIT, `an agent holds at most ${MAX_STACKS} stacks`);
      return;
    }
    content.remember(upsert.blobs);
    if (upsert.delta) {
      const base = held.manifest(stackId, upsert.delta.baseDigest);
      if (base && !isOpaque(base)) this.#accept(upsert, applyDelta(base, upsert.delta));
      else this.#nack(upsert, NackCode.BASE_UNKNOWN, 'the base of the delta is not held');
      return;
    }
    const manifest = upsert.manifest ? fromWire(upsert.manifest) : held.manifest(stackId, upsert.manifestDigest);
    if (manifest) this.#accept(upsert, manifest);
    else
      this.#fetch(upsert).catch((error: unknown) => {
        this.#deps.log.error({ stack: stackId, generation, error: errorText(error) }, 'taking a stack failed');
      });
  }

  #accept(upsert: Upsert, manifest: Manifest, sinceMs = this.#deps.clock.now()): void {
    const { held, reports, engine, clock } = this.#deps;
    if (Buffer.compare(manifestDigest(manifest), upsert.manifestDigest) !== 0) {
      this.#nack(upsert, NackCode.DIGEST_MISMATCH, 'the manifest does not match its digest', DIGEST_RETRY_MS);
      return;
    }
    if (!isOpaque(manifest) && manifest.length > MAX_OBJECTS) {
      this.#nack(upsert, NackCode.LIMIT, `a stack has at most ${MAX_OBJECTS} objects`, DIGEST_RETRY_MS);
      return;
    }
    const traceparent = noteSpanOf(upsert.traceparent, {
      name: 'take generation',
      kind: SpanKind.CONSUMER,
      attributes: stackAttributes(upsert),
      startMs: sinceMs,
    });
    const target = { ...toTarget(upsert, manifest, this.#incarnation), traceparent };
    const before = held.received(target.stackId);
    held.take(target);
    if (before?.generation !== target.generation) {
      reports.received(target.stackId, target.generation, target.manifestDigest, timestampFromMs(clock.now()));
    }
    engine.offer(target);
  }

  async #fetch(upsert: Upsert): Promise<void> {
    const { stackId, generation } = upsert;
    const sinceMs = this.#deps.clock.now();
    const stop = new AbortController();
    this.#fetching.set(stackId, stop);
    const signal = AbortSignal.any([stop.signal, this.#signal]);
    try {
      await this.#slot();
      signal.throwIfAborted();
      const manifest = await this.#deps.content.manifest(stackId, generation, upsert.manifestDigest, signal);
      signal.throwIfAborted();
      this.#accept(upsert, manifest, sinceMs);
    } catch (error) {
      if (signal.aborted) return;
      this.#nack(upsert, NackCode.CONTENT_UNAVAILABLE, errorText(error), CONTENT_RETRY_MS);
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
      if (this.#fetching.get(stackId) === stop) this.#fetching.delete(stackId);
      this.delivered(undefined);
    }
  }

  async #slot(): Promise<void> {
    this.#running++;
    if (this.#running <= MAX_FETCHES) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    await promise;
  }

  #supersede(stackId: string): void {
    this.#fetching.get(stackId)?.abort(new Error('a newer generation came'));
    this.#fetching.delete(stackId);
  }

  #nack({ stackId, generation }: Upsert, code: NackCode, detail: string, retryAfterMs = 0): void {
    this.#deps.log.warn({ stack: stackId, generation, code: NackCode[code], detail }, 'stack not taken');
    this.#deps.nack(create(NackSchema, { stackId, generation, code, detail: detail.slice(0, 1024), retryAfterMs }));
  }
}

function toTarget(upsert: Upsert, manifest: Manifest, incarnation: string): Omit<StackTarget, 'traceparent'> {
  const { stackId, stackName, generation, deploymentObjectId, optionsDigest, salt, revision } = upsert;
  const options = upsert.options ?? create(ApplyOptionsSchema);
  const publishedAtMs = upsert.publishedAt ? timestampMs(upsert.publishedAt) : 0;
  const digests = { manifestDigest: upsert.manifestDigest, optionsDigest };
  return {
    stackId,
    stackName,
    generation,
    deploymentObjectId,
    manifest,
    ...digests,
    options,
    salt,
    publishedAtMs,
    incarnation,
    revision,
  };
}

function rootOf(entries: ReadonlyMap<string, Staged>): Uint8Array {
  const root = new RootDigest();
  for (const [stackId, entry] of entries) {
    const { generation } = entry.value;
    const digest =
      entry.case === 'upsert'
        ? entryDigest(stackId, generation, entry.value.manifestDigest, entry.value.optionsDigest)
        : tombstoneDigest(stackId, generation, policyName(entry.value.policy));
    root.set(stackId, digest);
  }
  return root.root();
}
