import { create } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import type { Task } from '#lib/run.ts';
import type { ClusterNetwork } from '#proto/brokkr/v1/network_pb.js';
import { type AgentFacts, AgentFactsSchema } from '#proto/brokkr/v1/sync_pb.js';
import { MAX_CAPABILITIES, servedCapabilities } from './capabilities.ts';
import type { Kube } from './kube/kube.ts';
import { discoverNetwork } from './network-facts.ts';

/** Time between two looks at the API server. */
const LOOK_MS = 15_000;
/** The version of a server that was upgraded is told after this long. */
const VERSION_AGE_MS = 10 * 60_000;
/** A network that changed: it hardly ever does, and a look at it costs six lists. */
const NETWORK_AGE_MS = 60 * 60_000;

/** Facts that do not change while the process runs. */
export interface FactsOptions {
  readonly clusterWide: boolean;
  /** Names and other particulars, as key and value. */
  readonly capabilities: Readonly<Record<string, string>>;
}

/** What one look at the API server found. */
export interface SeenServer {
  readonly reachable: boolean;
  readonly latencyMs: number;
  /** Why it is not reachable, for people. */
  readonly trouble: string | undefined;
}

/** Keeps an eye on the API server, so that a heartbeat never waits for it. */
export class ClusterFacts implements Task {
  readonly name = 'cluster-facts';
  readonly #deps: { readonly kube: Kube; readonly clock: Clock };
  readonly #options: FactsOptions;
  #version = '';
  #versionAtMs = 0;
  #network: ClusterNetwork | undefined;
  #networkAtMs = 0;
  #served: Readonly<Record<string, string>> = {};
  #seen: SeenServer | undefined;

  constructor(deps: { readonly kube: Kube; readonly clock: Clock }, options: FactsOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** The last look; undefined before the first. */
  get seen(): SeenServer | undefined {
    return this.#seen;
  }

  /** For Hello, and for heartbeats after they changed. */
  facts(): AgentFacts {
    const { clusterWide, capabilities } = this.#options;
    return create(AgentFactsSchema, {
      kubernetesVersion: this.#version,
      clusterWide,
      capabilities: { ...this.#served, ...capabilities },
      ...(this.#network && { network: this.#network }),
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        await this.look(signal);
        await this.#deps.clock.sleep(LOOK_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Looks once. Rejects only when `signal` aborts. */
  async look(signal: AbortSignal): Promise<void> {
    const { kube, clock } = this.#deps;
    const started = clock.monotonic();
    const reachable = await kube.ready(signal);
    this.#seen = { reachable, latencyMs: clock.monotonic() - started, trouble: kube.transport.trouble };
    if (!reachable) return;
    try {
      if (this.#version === '' || started - this.#versionAtMs > VERSION_AGE_MS) {
        this.#version = await kube.version(signal);
        this.#versionAtMs = started;
      }
      const { resources } = await kube.resources.all(signal); // asks the server every 10 minutes and after a kind was missing
      const isOld = this.#network === undefined || started - this.#networkAtMs > NETWORK_AGE_MS;
      if (this.#options.clusterWide && isOld) {
        this.#networkAtMs = started;
        this.#network = await discoverNetwork(kube, new Set(resources.map(({ group }) => group)), signal);
      }
      this.#served = servedCapabilities(resources, MAX_CAPABILITIES - Object.keys(this.#options.capabilities).length);
    } catch {
      signal.throwIfAborted(); // next time: a heartbeat does not depend on it
    }
  }
}
