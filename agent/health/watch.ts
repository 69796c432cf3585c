import { type Clock, TimeoutError } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { ValueObject } from '#lib/object.ts';
import { runTasks, type Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { WatchedKind } from '../drift/watch.ts';
import type { Kube } from '../kube/kube.ts';
import type { KubeObject } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { HealthJudge } from './judge.ts';
import { hasPods, type PodTrouble, podSelector, topReason } from './pod-reasons.ts';
import { hasReadiness, type Readiness, readiness, unsettled } from './readiness.ts';
import { ruleFor } from './rule.ts';
import type { SeenHealth } from './seen.ts';

/** A stack whose objects are watched. */
export interface WatchedStack {
  readonly stackId: string;
  /** What is known of its objects, by key of the inventory. Written here. */
  readonly seen: SeenHealth;
  /** Options of its target; undefined before there is one. */
  readonly options: Pick<ApplyOptions, 'healthRules' | 'failureDeadlineSeconds'> | undefined;
  /** A job was seen to be complete: when it goes, it is not missed. */
  finished(key: string, uid: string): void;
}

/** What it needs. */
export interface HealthWatchDeps {
  readonly kube: Kube;
  readonly yaml: Pick<YamlPool, 'health'>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Pods of a workload are asked for why it is not ready after this time, and then again after a wait that doubles up to the cap. */
const PODS_AFTER_MS = 30_000;
const PODS_AGAIN = { baseMs: 60_000, capMs: 1_800_000 };
/** Pods looked at. */
const MAX_PODS = 20;
/** Without any change of its state for this long an object is late, unless the stack says otherwise (`failure_deadline_seconds`). */
const PROGRESS_SECONDS = 300;
/** Kinds that are never late: their controllers have deadlines of their own, and a claim may wait for its first pod. */
const PATIENT: ReadonlySet<string> = new Set(['apps/Deployment', 'batch/Job', '/PersistentVolumeClaim']);
/** Kinds whose pods are looked for. */
const WORKLOADS: ReadonlySet<string> = new Set([
  ...['apps/Deployment', 'apps/StatefulSet', 'apps/DaemonSet', 'apps/ReplicaSet', 'batch/Job', '/ReplicationController'],
]);
const PODS: Resource = { group: '', version: 'v1', kind: 'Pod', plural: 'pods', namespaced: true, verbs: ['list'] };

/** An object that is not ready. Times are monotonic. */
interface Unready {
  readonly stack: WatchedStack;
  readonly key: string;
  readonly kind: string;
  readonly namespace: string;
  readonly sinceMs: number;
  selector: string | undefined;
  state: Readiness;
  /** When the state changed last. */
  changedAt: number;
  /** When its pods are asked for next, and how long after that. */
  podsAt: number;
  podsWaitMs: number;
  pods: PodTrouble | undefined;
}

/**
 * What the objects of all stacks are like: by our rules or those of the stack, with the reason of its pods for a workload that is not ready
 * for 30 s, and late after 5 minutes without progress, all measured by our own clock.
 */
export class HealthWatch implements Task {
  readonly name = 'health watch';
  readonly #deps: HealthWatchDeps;
  readonly #touch: (stack: WatchedStack) => void;
  readonly #judge: HealthJudge;
  /** By stack and key. */
  readonly #unready = new Map<string, Unready>();
  readonly #wakeup = new Wakeup();
  /** Monotonic time at which the loop below looks again. */
  #next = Number.POSITIVE_INFINITY;

  /** `touch` is called when something is known of an object of a stack that was not known before. */
  constructor(deps: HealthWatchDeps, touch: (stack: WatchedStack) => void) {
    this.#deps = deps;
    this.#touch = touch;
    this.#judge = new HealthJudge(deps);
  }

  /** An object of a stack appeared or changed. */
  see(stack: WatchedStack, { group, kind, namespaced }: WatchedKind, key: string, object: KubeObject): void {
    const id = idOf(stack, key);
    const facts = {
      ...{ stack, key, kind: `${group}/${kind}` },
      namespace: namespaced ? (object.metadata.namespace ?? '') : '',
      selector: WORKLOADS.has(`${group}/${kind}`) && hasPods(object) ? podSelector(object) : undefined,
    };
    const rule = ruleFor(stack.options?.healthRules, group, kind);
    const early = rule && unsettled(object);
    if (!rule || early) this.#judge.forget(id);
    if (!rule && !hasReadiness(group, kind)) return;
    const { uid, generation = 0 } = object.metadata;
    const ours: Readiness = { ...(early ?? readiness(group, kind, object)), uid, generation };
    if (facts.kind === 'batch/Job' && ours.reason === 'Complete') stack.finished(key, uid);
    if (!rule || early) this.#know(id, facts, ours);
    else {
      const told = (judged: Pick<Readiness, 'state' | 'reason' | 'message'>) => this.#know(id, facts, { ...ours, ...judged });
      const { current, progressing, failed, message } = rule;
      this.#judge.ask(id, { rule: { current, progressing, failed, message }, object: object as unknown as ValueObject, told });
    }
  }

  /** An object of a stack is gone. */
  left(stack: WatchedStack, key: string): void {
    this.#judge.forget(idOf(stack, key));
    this.#unready.delete(idOf(stack, key));
    if (stack.seen.drop(key)) this.#touch(stack);
  }

  /** A stack is gone. */
  forget(stack: WatchedStack): void {
    this.#judge.forgetAll(idOf(stack, ''));
    for (const key of stack.seen.states.keys()) this.left(stack, key);
  }

  async run(signal: AbortSignal): Promise<void> {
    const timing: Task = { name: 'health deadlines', run: (inner) => this.#watchTime(inner) };
    await runTasks([this.#judge, timing], signal);
  }

  #know(id: string, facts: Pick<Unready, 'stack' | 'key' | 'kind' | 'namespace' | 'selector'>, state: Readiness): void {
    if (state.state === 'ready') {
      this.#unready.delete(id);
      this.#tell(facts.stack, facts.key, state);
      return;
    }
    const now = this.#deps.clock.monotonic();
    const known = this.#unready.get(id);
    const fresh = {
      sinceMs: this.#deps.clock.now(),
      podsAt: now + PODS_AFTER_MS,
      podsWaitMs: PODS_AGAIN.baseMs,
      pods: undefined,
    };
    const unready: Unready = known ?? { ...fresh, ...facts, state, changedAt: now };
    if (JSON.stringify(unready.state) !== JSON.stringify(state)) unready.changedAt = now;
    unready.state = state;
    unready.selector = facts.selector;
    this.#unready.set(id, unready);
    this.#show(unready);
    if (Math.min(lateAt(unready), podsAt(unready)) < this.#next) this.#wakeup.wake();
  }

  /** What is said of an object that is not ready. */
  #show(unready: Unready): void {
    const { stack, key, state, sinceMs, pods } = unready;
    let said = state;
    if (this.#deps.clock.monotonic() >= lateAt(unready)) {
      const late = `no progress for ${deadlineSeconds(stack)} s: ${state.message || state.reason}`;
      said = { ...state, state: 'failing', reason: 'NoProgress', message: late };
    }
    if (pods) said = { ...said, reason: pods.reason, message: `${said.message}; ${pods.message}` };
    this.#tell(stack, key, { ...said, sinceMs });
  }

  #tell(stack: WatchedStack, key: string, state: Readiness): void {
    if (stack.seen.see(key, state)) this.#touch(stack);
  }

  /** Notices objects that are late, and asks for pods, of one workload at a time. */
  async #watchTime(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      this.#next = Number.POSITIVE_INFINITY;
      for (const unready of [...this.#unready.values()]) {
        if (podsAt(unready) <= clock.monotonic()) await this.#askPods(unready, signal);
        if (lateAt(unready) <= clock.monotonic()) this.#show(unready);
        else this.#next = Math.min(this.#next, lateAt(unready));
        this.#next = Math.min(this.#next, podsAt(unready));
      }
      await this.#waitForNext(signal);
    }
  }

  async #waitForNext(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    if (this.#next === Number.POSITIVE_INFINITY) return this.#wakeup.wait(signal).catch(() => undefined);
    using deadline = clock.deadline(Math.max(0, this.#next - clock.monotonic()), signal);
    await this.#wakeup.wait(deadline.signal).catch((error: unknown) => {
      if (!signal.aborted && !(error instanceof TimeoutError)) throw error;
    });
  }

  async #askPods(unready: Unready, signal: AbortSignal): Promise<void> {
    const { kube, clock, log } = this.#deps;
    const { namespace, selector } = unready;
    unready.podsAt = clock.monotonic() + unready.podsWaitMs;
    unready.podsWaitMs = Math.min(PODS_AGAIN.capMs, 2 * unready.podsWaitMs);
    const request = { resource: PODS, namespace, labelSelector: selector, content: 'full', limit: MAX_PODS } as const;
    try {
      const page = await kube.limiter.run(() => kube.list(request, signal).next(), 'low', signal);
      unready.pods = page.done ? undefined : topReason(page.value.items);
    } catch (error) {
      if (signal.aborted) return;
      log.debug({ namespace, error: errorText(error) }, 'pods of a workload cannot be listed');
    }
    if (this.#unready.get(idOf(unready.stack, unready.key)) === unready) this.#show(unready);
  }
}

function lateAt({ stack, kind, state, changedAt }: Unready): number {
  if (state.state !== 'progressing' || PATIENT.has(kind)) return Number.POSITIVE_INFINITY;
  return changedAt + deadlineSeconds(stack) * 1000;
}

/** When the pods of a workload are asked for next; nobody asks for those of one that was told to wait. */
function podsAt({ state, selector, podsAt: at }: Unready): number {
  return selector === undefined || state.state === 'suspended' ? Number.POSITIVE_INFINITY : at;
}

function deadlineSeconds({ options }: WatchedStack): number {
  return options?.failureDeadlineSeconds || PROGRESS_SECONDS;
}

function idOf({ stackId }: WatchedStack, key: string): string {
  return `${stackId} ${key}`;
}
