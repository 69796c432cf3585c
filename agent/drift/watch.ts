import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { keyString } from '#lib/object.ts';
import type { Task } from '#lib/run.ts';
import { aborted, Wakeup } from '#lib/signal.ts';
import type { HealthRule } from '#proto/brokkr/v1/content_pb.js';
import { hasReadiness } from '../health/readiness.ts';
import { ruleFor, ruleText } from '../health/rule.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import { classify } from '../kube/errors.ts';
import type { Kube } from '../kube/kube.ts';
import type { KubeObject } from '../kube/objects.ts';
import type { Reflector, ReflectorEvent } from '../kube/reflector.ts';
import { STACK_LABEL } from '../stack-identity.ts';
import { Confinements } from './confinement.ts';
import { isOlder } from './drift.ts';

/** Takes what is seen of the objects of all stacks. Keys are those of the inventory (`keyString`). */
export interface WatchObserver {
  /** An object with our label appeared or changed. Whole for kinds with readiness rules, else metadata only. */
  seen(kind: WatchedKind, key: string, object: KubeObject): void;
  /** An object was deleted or lost the label. */
  left(key: string): void;
  /** Every object of a kind (in a namespace, when one is given) was told; what is not among `keys` is not there. */
  listed(kind: WatchedKind, namespace: string | undefined, keys: ReadonlySet<string>): void;
  /** What cannot be seen changed. */
  blinded(): void;
}

/** A kind in use. */
export type WatchedKind = Pick<InventoryEntry, 'group' | 'version' | 'kind' | 'plural' | 'namespaced'>;

interface Use {
  readonly kind: WatchedKind;
  /** Text of the stack's health rule for it, '' without one. */
  readonly rule: string;
  readonly namespaces: Set<string>;
  /** Highest version we wrote of its objects, '' when none is known. */
  newest: string;
}

interface Running {
  readonly stop: AbortController;
  readonly done: Promise<void>;
  readonly plural: string;
  readonly reflector: Reflector;
}

/** Kinds watched at most; those beyond are not (APPLY §5.13). */
const MAX_KINDS = 200;

interface Deps {
  readonly kube: Kube;
  readonly log: Logger;
  readonly clock: Clock;
  readonly clusterWide: boolean;
}

/**
 * Watches the kinds that stacks have objects of, one watch a kind for the whole agent: in the whole cluster, or, where the agent may not,
 * in each namespace in use. Drift and health both live from it.
 */
export class ObjectWatch implements Task {
  readonly name = 'object watch';
  readonly #kube: Kube;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #clusterWide: boolean;
  readonly #observer: WatchObserver;
  readonly #uses = new Map<string, Map<string, Use>>();
  /** By kind and namespace (empty for the whole cluster). */
  readonly #running = new Map<string, Running>();
  readonly #confined: Confinements;
  /** Watches that do not work now, in words, by key as `#running`. */
  readonly #unseen = new Map<string, string>();
  readonly #wakeup = new Wakeup();

  /** Without `clusterWide` it never asks for more than the namespaces in use. */
  constructor({ kube, log, clock, clusterWide }: Deps, observer: WatchObserver) {
    this.#kube = kube;
    this.#log = log;
    this.#clock = clock;
    this.#confined = new Confinements({ kube, clock });
    this.#clusterWide = clusterWide;
    this.#observer = observer;
  }

  /** Says which objects a stack has, none at all when it is gone, and its health rules: kinds with a rule are seen whole. */
  use(stackId: string, entries: Iterable<InventoryEntry>, rules: readonly HealthRule[] = []): void {
    const kinds = new Map<string, Use>();
    for (const { group, version, kind, plural, namespaced, namespace, print } of entries) {
      if (plural === '') continue; // its definition is not there yet
      const key = `${group}/${kind}`;
      const rule = ruleFor(rules, group, kind);
      const use = kinds.get(key) ?? {
        kind: { group, version, kind, plural, namespaced },
        rule: rule ? ruleText(rule) : '',
        namespaces: new Set(),
        newest: '',
      };
      use.namespaces.add(namespace);
      if (print && !isOlder(print.resourceVersion, use.newest)) use.newest = print.resourceVersion;
      kinds.set(key, use);
    }
    if (kinds.size > 0) this.#uses.set(stackId, kinds);
    else this.#uses.delete(stackId);
    this.#wakeup.wake();
  }

  /** What cannot be watched now, in words. */
  get unseen(): readonly string[] {
    return [...this.#unseen.values()].sort();
  }

  /** What of a stack cannot be watched now, in words. */
  unseenBy(stackId: string): readonly string[] {
    const keys = [...(this.#uses.get(stackId) ?? [])].flatMap(([key, { namespaces }]) => [
      `${key}/`,
      ...[...namespaces].map((namespace) => `${key}/${namespace}`),
    ]);
    return [...new Set(keys)].flatMap((key) => this.#unseen.get(key) ?? []).sort();
  }

  /** Monotonic time of the last sign of life of each kind's watches (of the quietest one), by plural. */
  get heardAt(): ReadonlyMap<string, number> {
    const times = new Map<string, number>();
    for (const { plural, reflector } of this.#running.values()) {
      const { lastEventAt } = reflector;
      if (lastEventAt !== undefined) times.set(plural, Math.min(lastEventAt, times.get(plural) ?? lastEventAt));
    }
    return times;
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        this.#adjust(signal);
        await this.#wait(signal);
        await this.#confined.ask((key) => [...this.#uses.values()].some((kinds) => kinds.has(key)), signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      for (const { stop } of this.#running.values()) stop.abort(signal.reason);
      await Promise.all([...this.#running.values()].map(({ done }) => done));
      this.#running.clear();
    }
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const { dueInMs } = this.#confined;
    if (dueInMs === undefined) await this.#wakeup.wait(signal);
    else await this.#wakeup.waitAtMost(dueInMs, this.#clock, signal);
  }

  /** Starts and ends watches as the kinds in use say. */
  #adjust(signal: AbortSignal): void {
    const wanted = new Map<
      string,
      { readonly kind: WatchedKind; readonly namespace: string | undefined; readonly ruled: boolean }
    >();
    for (const kinds of this.#uses.values()) {
      for (const [key, { kind, namespaces }] of kinds) {
        // With other rules the watch begins anew, which shows every object to them.
        const rules = this.#rulesFor(key);
        const ruled = rules !== '';
        if (kind.namespaced && (!this.#clusterWide || this.#confined.has(key))) {
          for (const namespace of namespaces) wanted.set(`${key}/${namespace}${rules}`, { kind, namespace, ruled });
        } else wanted.set(`${key}/${rules}`, { kind, namespace: undefined, ruled });
      }
    }
    for (const [key, { stop }] of this.#running) {
      if (wanted.has(key)) continue;
      stop.abort(new Error('no longer watched'));
      this.#running.delete(key);
      this.#see(key);
    }
    for (const [key, { kind, namespace, ruled }] of wanted) {
      if (this.#running.has(key)) continue;
      if (this.#running.size >= MAX_KINDS) {
        this.#log.warn({ limit: MAX_KINDS, kind: kind.kind }, 'too many kinds to watch');
        break;
      }
      const stop = new AbortController();
      const whole = ruled || hasReadiness(kind.group, kind.kind);
      const reflector = this.#reflector(kind, namespace, whole);
      const done = this.#watch(kind, reflector, AbortSignal.any([signal, stop.signal]));
      this.#running.set(key, { stop, done, reflector, plural: kind.plural });
    }
  }

  /** Highest version we wrote of a kind: a list that is older would miss objects that are there. */
  #newest(key: string): string {
    let newest = '';
    for (const kinds of this.#uses.values()) {
      const version = kinds.get(key)?.newest ?? '';
      if (version !== '' && !isOlder(version, newest)) newest = version;
    }
    return newest;
  }

  /** The health rules of all stacks for a kind, as a part of the key of its watches. */
  #rulesFor(key: string): string {
    const texts = [...this.#uses.values()].map((kinds) => kinds.get(key)?.rule ?? '');
    return [...new Set(texts)].sort().join('');
  }

  #reflector(kind: WatchedKind, namespace: string | undefined, whole: boolean): Reflector {
    const present = new Set<string>();
    const since = this.#newest(`${kind.group}/${kind.kind}`);
    return this.#kube.reflector({
      ...(since !== '' && { since }),
      resource: { ...kind, verbs: [] },
      namespace,
      labelSelector: STACK_LABEL,
      content: whole ? 'full' : 'metadata',
      onEvent: (event) => this.#tell(kind, namespace, present, event),
    });
  }

  async #watch(kind: WatchedKind, reflector: Reflector, signal: AbortSignal): Promise<void> {
    try {
      await reflector.run(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#log.error({ kind: kind.kind, error }, 'watch failed');
      await aborted(signal);
    }
  }

  #tell(kind: WatchedKind, namespace: string | undefined, present: Set<string>, event: ReflectorEvent): void {
    switch (event.kind) {
      case 'changed': {
        const key = keyOf(kind, event.object.metadata);
        present.add(key);
        this.#observer.seen(kind, key, event.object);
        return;
      }
      case 'left': {
        const key = keyOf(kind, event.identity);
        present.delete(key);
        this.#observer.left(key);
        return;
      }
      case 'synced':
        this.#observer.listed(kind, namespace, present);
        return;
      case 'degraded':
        if (namespace === undefined && kind.namespaced && classify(event.error) === 'permission') {
          this.#confined.refused(kind);
          this.#wakeup.wake();
        } else this.#blind(kind, namespace, event.error);
        return;
      case 'recovered':
        this.#see(watchKey(kind, namespace));
        return;
    }
  }

  #blind(kind: WatchedKind, namespace: string | undefined, error: unknown): void {
    this.#log.warn({ kind: kind.kind, namespace, error }, 'objects cannot be watched');
    const place = namespace === undefined ? '' : ` in ${namespace}`;
    this.#unseen.set(watchKey(kind, namespace), `${kind.plural}${place}: ${errorText(error)}`);
    this.#observer.blinded();
  }

  #see(key: string): void {
    if (this.#unseen.delete(key)) this.#observer.blinded();
  }
}

/** Names a watch. */
function watchKey({ group, kind }: WatchedKind, namespace: string | undefined): string {
  return `${group}/${kind}/${namespace ?? ''}`;
}

function keyOf(
  { group, kind }: WatchedKind,
  { namespace, name }: { readonly namespace?: string | undefined; readonly name: string },
): string {
  return keyString({ group, kind, namespace: namespace ?? '', name });
}
