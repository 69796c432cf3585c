import type { Clock } from '#lib/clock.ts';
import { abortable } from '#lib/signal.ts';
import { type DiscoveredGroup, type DiscoveredVersion, type Discovery, discover, discoverVersion } from './discovery.ts';
import type { Resource } from './resource.ts';
import type { KubeTransport } from './transport.ts';

/** Discovery older than this is asked for again (a conditional request). */
const MAX_AGE_MS = 10 * 60_000;
/** A kind that is not there makes us look again, but not more often than this. */
const MIN_AGE_MS = 500;

/**
 * Three answers, never two: `absent` means the server positively does not serve the kind; `unknown` means nobody can tell, because
 * discovery of its group failed (an aggregated API server is down). Nothing may be pruned on `unknown`.
 */
export type Mapping =
  | { readonly kind: 'found'; readonly resource: Resource }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unknown'; readonly reason: string };

/** Everything the server serves. */
export interface ServedResources {
  readonly resources: readonly Resource[];
  /** Group-versions (`metrics.k8s.io/v1beta1`) whose resources cannot be told now. */
  readonly unknown: readonly string[];
}

/** Which kinds the server serves and under which path. Cached 10 minutes; a miss looks again once. */
export class Resources {
  readonly #transport: KubeTransport;
  readonly #clock: Clock;
  #discovery: Discovery | undefined;
  #loadedAt = 0;
  #stale = true;
  #loading: Promise<Discovery> | undefined;

  constructor({ transport, clock }: { readonly transport: KubeTransport; readonly clock: Clock }) {
    this.#transport = transport;
    this.#clock = clock;
  }

  /** The resource of a kind in a given version. Rejects when discovery as a whole fails. */
  resourceFor(group: string, version: string, kind: string, signal: AbortSignal): Promise<Mapping> {
    return this.#look((discovery) => this.#inVersions(discovery, group, kind, (name) => name === version, signal), signal);
  }

  /** The resource of a kind in the server's preferred version of its group. */
  preferred(group: string, kind: string, signal: AbortSignal): Promise<Mapping> {
    return this.#look((discovery) => this.#inVersions(discovery, group, kind, () => true, signal), signal);
  }

  /** Every resource in every served version, and what could not be discovered. */
  async all(signal: AbortSignal): Promise<ServedResources> {
    const discovery = await this.#current(MAX_AGE_MS, signal);
    const resources: Resource[] = [];
    const unknown: string[] = [];
    for (const group of discovery.groups.values()) {
      for (const version of group.versions) {
        const { state } = await this.#complete(group, version, signal);
        if (state.kind === 'known') resources.push(...state.resources);
        else unknown.push(group.name === '' ? version.name : `${group.name}/${version.name}`);
      }
    }
    return { resources, unknown };
  }

  /** Call when a kind turned out to be missing, or a CRD or APIService changed: the next question asks the server. */
  invalidate(): void {
    this.#stale = true;
  }

  async #look(find: (discovery: Discovery) => Promise<Mapping>, signal: AbortSignal): Promise<Mapping> {
    const first = await find(await this.#current(MAX_AGE_MS, signal));
    if (first.kind === 'found') return first;
    return find(await this.#current(MIN_AGE_MS, signal));
  }

  async #inVersions(
    discovery: Discovery,
    groupName: string,
    kind: string,
    wanted: (version: string) => boolean,
    signal: AbortSignal,
  ): Promise<Mapping> {
    const group = discovery.groups.get(groupName);
    if (!group) return { kind: 'absent' };
    let unknown: Mapping | undefined;
    for (const version of group.versions.filter(({ name }) => wanted(name))) {
      const { state } = await this.#complete(group, version, signal);
      if (state.kind === 'unknown') unknown = state;
      else if (state.kind === 'known') {
        const resource = state.resources.find((candidate) => candidate.kind === kind);
        if (resource) return { kind: 'found', resource };
      }
    }
    return unknown ?? { kind: 'absent' };
  }

  /** Servers without aggregated discovery tell the resources of a group-version only when asked for it. */
  async #complete(group: DiscoveredGroup, version: DiscoveredVersion, signal: AbortSignal): Promise<DiscoveredVersion> {
    if (version.state.kind === 'unread') version.state = await discoverVersion(this.#transport, group.name, version.name, signal);
    return version;
  }

  async #current(maxAgeMs: number, signal: AbortSignal): Promise<Discovery> {
    const fresh = this.#discovery && !this.#stale && this.#clock.monotonic() - this.#loadedAt < maxAgeMs;
    if (fresh && this.#discovery) return this.#discovery;
    this.#loading ??= this.#load();
    return abortable(this.#loading, signal);
  }

  /** Shared by everyone who asks meanwhile, so no caller's signal may end it: the deadline of the request bounds it. */
  async #load(): Promise<Discovery> {
    try {
      this.#stale = false; // an invalidation from here on is about something newer
      this.#discovery = await discover(this.#transport, this.#discovery, new AbortController().signal);
      this.#loadedAt = this.#clock.monotonic();
      return this.#discovery;
    } catch (error) {
      this.#stale = true;
      throw error;
    } finally {
      this.#loading = undefined;
    }
  }
}
