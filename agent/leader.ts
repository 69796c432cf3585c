import { hostname } from 'node:os';
import { jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { explainFailure } from '#lib/reach-failure.ts';
import type { Task } from '#lib/run.ts';
import { keyDigest, untilDone } from './identity.ts';
import { createNamespace } from './inventory/maps.ts';
import { classify, KubeError, missing } from './kube/errors.ts';
import type { Kube } from './kube/kube.ts';
import type { KubeObject } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';
import type { AgentView } from './view.ts';

/** Times of the leader election of Kubernetes (k8s.io/client-go, tools/leaderelection), renewed less often: an idle agent stays quiet. */
const LEASE_SECONDS = 15;
const RENEW_MS = 5_000;
/** A standby looks this often, varied by a fifth. */
const LOOK_MS = 2_000;
const FIELD_MANAGER = 'brokkr-leader';

const LEASES: Resource = {
  group: 'coordination.k8s.io',
  version: 'v1',
  kind: 'Lease',
  plural: 'leases',
  namespaced: true,
  verbs: ['get', 'create', 'patch'],
};

/** Another replica holds the Lease now. */
export class LeadershipLostError extends Error {
  override readonly name = 'LeadershipLostError';
}

/** What an election needs. */
export interface LeaderDeps {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly log: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** The Lease and who we are in it. */
export interface LeaderOptions {
  /** Name of the Lease; replicas of one agent have the same. */
  readonly name: string;
  readonly namespace: string;
  /** Of this installation, of which one process runs at a time. */
  readonly identity: string;
}

/** What a Lease says, as far as it matters here. */
interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
}

/** A Lease as read: its version, and since when it has not changed by our own clock (the times in it come from other clocks). */
interface Seen {
  readonly version: string;
  readonly spec: LeaseSpec;
  readonly sinceMs: number;
}

/**
 * Lets one of several replicas of an agent work: it holds a Lease (coordination.k8s.io/v1) and renews it; the others wait for it to lapse or
 * to be given back. Not a fence by itself: a leader that cannot reach the API server keeps its session with the broker and cannot write
 * either; when it can again, the version of the inventory it writes before anything else refuses it, should another one have taken over.
 */
export class Leader implements Task {
  readonly name = 'leader election';
  readonly #deps: LeaderDeps;
  readonly #options: LeaderOptions;
  #seen: Seen | undefined;

  constructor(deps: LeaderDeps, options: LeaderOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Resolves once this process leads. Meanwhile `standby` is told who leads, or `waiting` why that cannot be told. Rejects with a
   * `KubeError` of class `permission` when Leases may not be used, otherwise only with the signal's reason.
   */
  async acquire(
    { standby, waiting }: { readonly standby: (leader: string) => void; readonly waiting: (problem: string) => void },
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, random } = this.#deps;
    for (;;) {
      try {
        const holder = await this.#look(signal);
        const free = holder === undefined || holder === this.#options.identity; // our own, from before a crash
        if (free && (await this.#take(signal))) return;
        if (holder !== undefined) standby(holder);
      } catch (error) {
        signal.throwIfAborted();
        if (classify(error) === 'permission') throw error;
        waiting(`the API server of the cluster cannot be asked who leads: ${explainFailure(error)}`);
      }
      await clock.sleep(jitter(LOOK_MS, 0.2, random), signal);
    }
  }

  /** Renews the Lease. Rejects with a `LeadershipLostError` when another replica has it. Call `release` when the work has ended, too. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, random } = this.#deps;
    while (!signal.aborted) {
      try {
        await clock.sleep(jitter(RENEW_MS, 0.2, random), signal);
        await this.#write({ ...this.#seen?.spec, renewTime: this.#now() }, signal);
      } catch (error) {
        if (signal.aborted) break;
        log.warn({ lease: this.#options.name, error: errorText(error) }, 'lease was not renewed');
        const holder = await this.#look(signal).catch(() => this.#options.identity); // nobody can be asked: nobody else can have it either
        if (holder !== undefined && holder !== this.#options.identity) throw new LeadershipLostError(`${holder} leads now`);
        if (holder === undefined && !(await this.#take(signal).catch(() => true)))
          throw new LeadershipLostError('another replica was faster');
      }
    }
  }

  /** Who holds the Lease: somebody, or undefined when it is free. */
  async #look(signal: AbortSignal): Promise<string | undefined> {
    const { kube, clock } = this.#deps;
    const live = await kube.find({ resource: LEASES, namespace: this.#options.namespace, name: this.#options.name }, signal);
    const now = clock.monotonic();
    if (!live) {
      this.#seen = undefined;
      return undefined;
    }
    const { resourceVersion } = live.metadata;
    if (this.#seen?.version !== resourceVersion) this.#seen = { version: resourceVersion, spec: specOf(live), sinceMs: now };
    const { spec, sinceMs } = this.#seen;
    const lapsed = now - sinceMs >= (spec.leaseDurationSeconds ?? LEASE_SECONDS) * 1000;
    return spec.holderIdentity && !lapsed ? spec.holderIdentity : undefined;
  }

  /** Takes a free Lease. False when another replica was faster. */
  async #take(signal: AbortSignal): Promise<boolean> {
    const now = this.#now();
    const spec = {
      holderIdentity: this.#options.identity,
      leaseDurationSeconds: LEASE_SECONDS,
      acquireTime: now,
      renewTime: now,
      leaseTransitions: (this.#seen?.spec.leaseTransitions ?? -1) + 1,
    };
    try {
      if (this.#seen) await this.#write(spec, signal);
      else await this.#create(spec, signal);
      return true;
    } catch (error) {
      if (error instanceof KubeError && error.status === 409) return false;
      throw error;
    }
  }

  async #create(spec: LeaseSpec, signal: AbortSignal): Promise<void> {
    const { kube, clock } = this.#deps;
    const { name, namespace } = this.#options;
    const body = JSON.stringify({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace }, spec });
    const create = () => kube.create({ resource: LEASES, namespace, body, fieldManager: FIELD_MANAGER }, signal);
    let live: KubeObject;
    try {
      live = await create();
    } catch (error) {
      if (missing(error, LEASES.plural) !== 'namespace') throw error;
      await createNamespace(this.#deps.kube, namespace, signal);
      live = await create();
    }
    this.#seen = { version: live.metadata.resourceVersion, spec, sinceMs: clock.monotonic() };
  }

  /** Writes the Lease as it was last seen; a 409 when somebody else wrote it since. */
  async #write(spec: LeaseSpec, signal: AbortSignal): Promise<void> {
    const { kube, clock } = this.#deps;
    const { name, namespace } = this.#options;
    const metadata = { name, namespace, resourceVersion: this.#seen?.version };
    const body = JSON.stringify({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec });
    const request = { resource: LEASES, namespace, name, body, fieldManager: FIELD_MANAGER, force: true };
    const { metadata: written } = await kube.apply(request, signal);
    this.#seen = { version: written.resourceVersion, spec, sinceMs: clock.monotonic() };
  }

  /** Gives the Lease back, so that the next replica need not wait for it to lapse. Does nothing to the Lease of another one. */
  async release(): Promise<void> {
    if (this.#seen?.spec.holderIdentity !== this.#options.identity) return;
    using deadline = this.#deps.clock.deadline(LOOK_MS, new AbortController().signal);
    const spec = { ...this.#seen?.spec, holderIdentity: '', leaseDurationSeconds: 1, renewTime: this.#now() };
    await this.#write(spec, deadline.signal).catch(() => undefined); // it lapses by itself
  }

  /** `MicroTime` has exactly six digits. */
  #now(): string {
    return new Date(this.#deps.clock.now()).toISOString().replace('Z', '000Z');
  }
}

/** What `elect` needs. */
export interface ElectionDeps extends LeaderDeps {
  readonly view: AgentView;
  /** The agent's key: replicas of one agent have the same. */
  readonly readKey: () => Promise<string>;
}

/** Settings of the election (`agent.*`). */
export interface ElectionOptions {
  readonly namespace: string;
  readonly leaderElection: 'auto' | 'on' | 'off';
  readonly leaseName?: string | undefined;
  /** Of this installation: what holds the Lease goes on with it after a crash. */
  readonly installId: string;
}

/** Waits until this replica leads. Undefined when there is no election: it is off, or the agent may not use Leases. */
export async function elect(
  deps: ElectionDeps,
  { namespace, leaderElection, leaseName, installId }: ElectionOptions,
  signal: AbortSignal,
): Promise<Leader | undefined> {
  if (leaderElection === 'off') return undefined;
  const { log, view, readKey } = deps;
  const retry = { ...deps, waiting: (problem: string) => view.starting(problem) };
  const name = leaseName ?? `brokkr-agent-${keyDigest(await untilDone('reading the key', readKey, retry, signal)).slice(0, 8)}`;
  const leader = new Leader(deps, { name, namespace, identity: `${hostname()}_${installId.slice(0, 8)}` });
  const acquire = async () => {
    try {
      await leader.acquire({ standby: (holder) => view.standby(holder), waiting: (problem) => view.starting(problem) }, signal);
      return leader;
    } catch (error) {
      if (leaderElection === 'on' || classify(error) !== 'permission') throw error;
      log.warn({ lease: name, error: errorText(error) }, 'leases may not be used: only one replica may run');
      return undefined;
    }
  };
  return await untilDone('taking the lease', acquire, retry, signal);
}

function specOf(lease: KubeObject): LeaseSpec {
  return (lease.spec ?? {}) as LeaseSpec;
}
