import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { classify, KubeError } from './errors.ts';
import { type KubeObject, type ListRequest, listObjects } from './objects.ts';
import { apiVersion } from './resource.ts';
import type { KubeTransport } from './transport.ts';
import { watchObjects } from './watch.ts';

const BACKOFF = { baseMs: 250, capMs: 30_000 };
/** A watch that ends sooner counts as a failure, so that a server that ends every watch is not asked in a loop. */
const STABLE_WATCH_MS = 5_000;

/** Who an object is, for events about objects that are no longer there. */
export interface ObjectIdentity {
  readonly uid: string;
  readonly namespace: string | undefined;
  readonly name: string;
}

/** What a reflector tells. */
export type ReflectorEvent =
  /** Appeared, changed, or was listed for the first time. */
  | { readonly kind: 'changed'; readonly object: KubeObject }
  /**
   * Left the selection: deleted, or it lost the label. Verify with one GET. `object` is its last state; absent when a new list
   * no longer held it. Judge by UID: after a new list, the successor of the same name may have been told before.
   */
  | { readonly kind: 'left'; readonly identity: ObjectIdentity; readonly object: KubeObject | undefined }
  /** A whole list has been told: what was not named is not there. */
  | { readonly kind: 'synced' }
  /** The kind cannot be listed or watched for now; told once until `recovered`. Nothing is known to be deleted. */
  | { readonly kind: 'degraded'; readonly error: unknown }
  | { readonly kind: 'recovered' };

/** Counts for metrics; `reason` is a small closed set. */
export interface ReflectorObserver {
  restarted(resource: string, reason: 'ended' | 'expired' | 'silent' | 'refused' | 'lost'): void;
  listed(resource: string): void;
}

interface Deps {
  readonly transport: KubeTransport;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly observe?: ReflectorObserver | undefined;
}

/** What to reflect. */
export interface ReflectorOptions extends Omit<ListRequest, 'limit' | 'resourceVersion' | 'notOlderThan'> {
  /** The first list is at least as new as this version: what the caller wrote up to it must not look missing. */
  readonly since?: string | undefined;
  /** Called in order, one at a time. Must be quick and must not throw: a throw ends the task. */
  onEvent(event: ReflectorEvent): void;
}

/**
 * Keeps telling the state of one kind: list, watch from there, list again when the server no longer has the versions between,
 * telling then what has left meanwhile. Holds UID, name and version of each object, not the objects. Endless backoff (to 30 s) on failures.
 */
export class Reflector implements Task {
  readonly name: string;
  readonly #deps: Deps;
  readonly #options: ReflectorOptions;
  readonly #known = new Map<string, ObjectIdentity & { readonly resourceVersion: string }>();
  /** Where to watch on from; undefined when a list is needed. */
  #resourceVersion: string | undefined;
  #everTried = false;
  #paged = true;
  #degraded = false;
  #lastEventAt: number | undefined;

  constructor(deps: Deps, options: ReflectorOptions) {
    this.#deps = deps;
    this.#options = options;
    this.name = `reflector ${options.resource.plural}.${apiVersion(options.resource)}${options.namespace ? ` in ${options.namespace}` : ''}`;
  }

  /** Number of objects known now. */
  get size(): number {
    return this.#known.size;
  }

  /** Monotonic time of the last sign of life: event, bookmark or list. */
  get lastEventAt(): number | undefined {
    return this.#lastEventAt;
  }

  async run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      const startedAt = this.#deps.clock.monotonic();
      try {
        if (this.#resourceVersion === undefined) await this.#list(signal);
        await this.#watch(signal);
        failures = this.#deps.clock.monotonic() - startedAt < STABLE_WATCH_MS ? failures + 1 : 0;
        this.#restarted('ended');
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ConsumerError) throw error.cause;
        if (this.#deps.clock.monotonic() - startedAt >= STABLE_WATCH_MS) failures = 0;
        failures += 1;
        if (this.#failed(error) && failures === 1) continue; // list again at once, but not in a loop
        await pause(this.#wait(failures, error), this.#deps.clock, signal);
        continue;
      }
      if (failures > 0) await pause(this.#wait(failures, undefined), this.#deps.clock, signal);
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { since } = this.#options;
    // Whole: the server's cache has no pages, and ignores the limit by itself only for version 0.
    const first = since === undefined ? { resourceVersion: '0' } : { notOlderThan: since, limit: 0 };
    const request = {
      ...this.#options,
      // The first list may come from the server's cache; a later one must not go back in time.
      ...(this.#everTried ? {} : first),
      ...(this.#paged ? {} : { limit: 0 }),
    };
    this.#everTried = true; // also when it fails: a version of a server that was restored from a backup may never come
    const seen = new Set<string>();
    let resourceVersion = '';
    for await (const page of listObjects(this.#deps.transport, request, signal)) {
      resourceVersion = page.resourceVersion;
      for (const object of page.items) {
        seen.add(object.metadata.uid);
        this.#changed(object);
      }
    }
    for (const identity of this.#known.values()) {
      if (seen.has(identity.uid)) continue;
      this.#known.delete(identity.uid);
      this.#tell({ kind: 'left', identity, object: undefined });
    }
    this.#resourceVersion = resourceVersion;
    this.#paged = true;
    this.#lastEventAt = this.#deps.clock.monotonic();
    this.#deps.observe?.listed(this.#options.resource.plural);
    this.#recovered();
    this.#tell({ kind: 'synced' });
  }

  async #watch(signal: AbortSignal): Promise<void> {
    for await (const { type, object } of watchObjects(this.#deps, this.#options, this.#resourceVersion ?? '0', signal)) {
      this.#recovered();
      this.#lastEventAt = this.#deps.clock.monotonic();
      if (type === 'DELETED') this.#left(object);
      else if (type !== 'BOOKMARK') this.#changed(object);
      this.#resourceVersion = object.metadata.resourceVersion;
    }
  }

  #changed(object: KubeObject): void {
    const { uid, namespace, name, resourceVersion } = object.metadata;
    if (this.#known.get(uid)?.resourceVersion === resourceVersion) return;
    this.#known.set(uid, { uid, namespace, name, resourceVersion });
    this.#tell({ kind: 'changed', object });
  }

  #left(object: KubeObject): void {
    const { uid, namespace, name } = object.metadata;
    this.#known.delete(uid);
    this.#tell({ kind: 'left', identity: { uid, namespace, name }, object });
  }

  /** Decides what a failure means; true when a list is due at once. */
  #failed(error: unknown): boolean {
    const kind = classify(error);
    if (kind === 'expired') {
      // A list that itself expired between pages is asked for whole the next time.
      if (this.#resourceVersion === undefined) this.#paged = false;
      this.#resourceVersion = undefined;
      this.#restarted('expired');
      return this.#paged;
    }
    if (error instanceof KubeError) {
      // A kind that is gone may come back as another kind of the same name: versions from before mean nothing.
      if (error.status === 404) this.#resourceVersion = undefined;
      this.#restarted('refused');
      if (kind !== 'transient') this.#degrade(error);
    } else {
      this.#restarted(error instanceof Error && error.name === 'TimeoutError' ? 'silent' : 'lost');
    }
    return false;
  }

  #degrade(error: unknown): void {
    if (this.#degraded) return;
    this.#degraded = true;
    this.#tell({ kind: 'degraded', error });
  }

  #recovered(): void {
    if (!this.#degraded) return;
    this.#degraded = false;
    this.#tell({ kind: 'recovered' });
  }

  #restarted(reason: Parameters<ReflectorObserver['restarted']>[1]): void {
    this.#deps.log.debug({ resource: this.#options.resource.plural, reason }, 'watch ended');
    this.#deps.observe?.restarted(this.#options.resource.plural, reason);
  }

  #wait(failures: number, error: unknown): number {
    const asked = error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
    return Math.max(asked, backoffMs(failures - 1, BACKOFF, this.#deps.random));
  }

  #tell(event: ReflectorEvent): void {
    try {
      this.#options.onEvent(event);
    } catch (cause) {
      throw new ConsumerError('event handler of a reflector failed', { cause });
    }
  }
}

/** A bug of the consumer, kept apart from failures of the server. */
class ConsumerError extends Error {}

async function pause(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(ms, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
