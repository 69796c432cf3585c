import { createHash, randomUUID } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Clock, systemClock } from '#lib/clock.ts';
import { manifestDigest } from '#lib/digest.ts';
import { createLog, type Logger } from '#lib/log.ts';
import { createMetrics } from '#lib/metrics.ts';
import type { Manifest } from '#lib/object.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { ApplyOptionsSchema, DeletionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { AttemptEvent, StackHealth, StackStatus } from '#proto/brokkr/v1/sync_pb.js';
import type { Kube, KubeDeps } from '../agent/kube/kube.ts';
import { createAgentMetrics } from '../agent/metrics.ts';
import { engineObserver } from '../agent/observe.ts';
import type { Reach } from '../agent/reach.ts';
import { openReconciler, type Reconciler, type ReconcilerDeps, type ReconcilerOptions } from '../agent/reconcile.ts';
import type { KeptWayBack } from '../agent/session/way-back.ts';
import {
  type ContentSource,
  ContentUnavailableError,
  type HeldStack,
  type StackTarget,
  type StackTombstone,
} from '../agent/stack/target.ts';
import { openTestKube } from './kube-client.ts';

/** For tests: where publications come from and reports go to, over several lives of an agent. */
export interface TestBroker extends AsyncDisposable {
  readonly agentId: string;
  readonly yaml: YamlPool;
  readonly events: AttemptEvent[];
  /** Newest of each stack. */
  readonly statuses: Map<string, StackStatus>;
  readonly transitions: StackHealth[];
  readonly summaries: StackHealth[][];
  /** Digests the agent asked for, in order. */
  readonly fetched: string[];
  /** Publishes the next generation of a stack (a random one unless given). */
  publish(text: string, settings?: PublishSettings): Promise<StackTarget>;
  tombstone(target: StackTarget, settings?: Partial<StackTombstone>): StackTombstone;
  /** Resolves once the condition holds; rejects after `ms` (20 s) with what is known. */
  until(what: string, condition: () => boolean, ms?: number): Promise<void>;
  /** The stack is applied at the target's generation. */
  applied(target: StackTarget): Promise<void>;
  eventsOf(target: { readonly stackId: string }): AttemptEvent[];
  /** Starts an agent's engine on an API server. */
  start(server: TestServer, options: Omit<ReconcilerOptions, 'agentId' | 'defaultNamespace'> & StartOptions): Promise<TestAgent>;
  forgetContent(): void;
  /** Stacks the engine asked the target of. */
  readonly needed: string[];
}

/** For tests: how to publish. */
export interface PublishSettings {
  readonly after?: StackTarget;
  readonly validation?: 'full' | 'none';
  readonly options?: MessageInitShape<typeof ApplyOptionsSchema>;
}

/** For tests: how an engine starts. */
export interface StartOptions extends Pick<ReconcilerDeps, 'rules'> {
  /** Nothing is logged unless given. */
  readonly log?: Logger;
  /** Whether deletions are held. */
  readonly held?: boolean;
  /** Nothing has to be reached unless given. */
  readonly reach?: Reach;
  /** Told of every request. */
  readonly observe?: KubeDeps['observe'];
}

/** For tests: the API server, or the proxy before it. */
export interface TestServer {
  readonly url: string;
  readonly caData?: string;
  readonly token: string;
}

/** For tests: a running engine. */
export interface TestAgent extends AsyncDisposable {
  readonly reconciler: Reconciler;
  readonly kube: Kube;
  readonly held: readonly HeldStack[];
  /** Ends at once, as a crash would: nothing is finished. */
  stop(): Promise<void>;
}

/** For tests: everything an engine needs but the cluster. Objects that name no namespace go to `namespace`. */
export function openTestBroker(namespace: string, clock: Clock = systemClock): TestBroker {
  const yaml = createYamlPool({ maxThreads: 1 });
  const recorder = openRecorder(clock);
  const { content, ...publisher } = openPublisher(yaml, clock);
  const { events, statuses, until } = recorder;
  const agentId = randomUUID();
  const needed: string[] = [];
  return {
    ...recorder,
    ...publisher,
    ...{ agentId, yaml, needed },
    eventsOf: ({ stackId }) => events.filter((event) => event.stackId === stackId),
    applied: ({ stackId, generation }) =>
      until(`applied at ${generation}`, () => {
        const status = statuses.get(stackId);
        return status?.phase === Phase.APPLIED && status.appliedGeneration === generation;
      }),
    tombstone: ({ stackId, stackName, generation }, settings = {}) => ({
      ...{ stackId, stackName, generation, incarnation: 'test', revision: undefined, traceparent: '' },
      policy: DeletionPolicy.DELETE,
      approved: true,
      ...settings,
    }),
    async start(
      server,
      {
        held: deletionsHeld = false,
        rules,
        observe,
        reach = async () => [],
        log = createLog('test', { level: 'fatal' }),
        ...options
      },
    ) {
      const kube = openTestKube(server, observe, clock);
      const counted = engineObserver(createAgentMetrics(createMetrics({ processMetrics: false }), systemClock, () => undefined));
      const deps = {
        observe: counted,
        kube,
        yaml,
        content,
        report: recorder.report,
        reach,
        clock,
        log,
        random: () => 0.5,
        newId: randomUUID,
      };
      const needTarget = (stackId: string) => void needed.push(stackId);
      const reconciler = openReconciler(
        { ...deps, needTarget, ...(rules && { rules }) },
        { kindRecheckMs: 300, ...options, agentId, defaultNamespace: namespace },
      );
      const controller = new AbortController();
      const held = await reconciler.load(controller.signal);
      if (!deletionsHeld) reconciler.holdDeletions(false);
      const done = reconciler.run(controller.signal);
      const stop = async () => {
        controller.abort(new Error('test over'));
        await done;
        await kube[Symbol.asyncDispose]();
      };
      return { reconciler, kube, held, stop, [Symbol.asyncDispose]: stop };
    },
    [Symbol.asyncDispose]: () => yaml[Symbol.asyncDispose](),
  };
}

/** Where publications and their content come from. */
function openPublisher(yaml: YamlPool, clock: Clock) {
  const texts = new Map<string, string>();
  const manifests = new Map<string, Manifest>();
  const fetched: string[] = [];
  const wayBacks = new Map<string, KeptWayBack>();
  const content: ContentSource = {
    async documents(stack: string, _generation: bigint, digests: readonly string[]) {
      fetched.push(...digests);
      const kept = wayBacks.get(stack)?.documents;
      const found = digests.map((digest) => [digest, texts.get(digest) ?? kept?.get(digest)] as const);
      if (found.some(([, text]) => text === undefined)) throw new ContentUnavailableError('the broker cannot be reached');
      return new Map(found as [string, string][]);
    },
    async manifest(stack: string, _generation: bigint, digest: Uint8Array) {
      const good = wayBacks.get(stack)?.good;
      if (good && Buffer.compare(good.manifestDigest, digest) === 0) return good.manifest;
      const manifest = manifests.get(Buffer.from(digest).toString('hex'));
      if (!manifest) throw new ContentUnavailableError('the broker cannot be reached');
      fetched.push(Buffer.from(digest).toString('hex'));
      return manifest;
    },
    async keepWayBack(wayBack, digests, signal) {
      const { stackId, generation } = wayBack.goal;
      wayBacks.set(stackId, { ...wayBack, documents: await content.documents(stackId, generation, digests, signal) });
    },
    async dropWayBack(stackId) {
      wayBacks.delete(stackId);
    },
    async loadWayBacks(stackIds) {
      return [...wayBacks.values()].filter(({ goal }) => stackIds.has(goal.stackId));
    },
  };
  const publish: TestBroker['publish'] = async (text, { after, validation = 'full', options = {} } = {}) => {
    const stackId = after?.stackId ?? randomUUID();
    const salt = createHash('sha256').update(stackId).digest().subarray(0, 16);
    const { manifest, documents, problems } = await yaml.publish({ text, salt, validation }, new AbortController().signal);
    const [first] = problems.filter(({ severity }) => severity === 'error');
    if (first) throw new Error(first.message);
    for (const { sourceDigest, text: document } of documents) texts.set(sourceDigest, document);
    manifests.set(Buffer.from(manifestDigest(manifest)).toString('hex'), manifest);
    return {
      stackId,
      stackName: after?.stackName ?? `stack-${stackId.slice(0, 8)}`,
      generation: (after?.generation ?? 0n) + 1n,
      deploymentObjectId: randomUUID(),
      manifest,
      manifestDigest: manifestDigest(manifest),
      optionsDigest: createHash('sha256').update(JSON.stringify(options)).digest(),
      options: create(ApplyOptionsSchema, options),
      salt,
      publishedAtMs: clock.now(),
      incarnation: 'test',
      revision: undefined,
      traceparent: '',
    };
  };
  const forgetContent = () => {
    texts.clear();
    manifests.clear();
  };
  return { content, publish, fetched, forgetContent };
}

/** The other end of the reports. */
function openRecorder(clock: Clock) {
  const events: AttemptEvent[] = [];
  const statuses = new Map<string, StackStatus>();
  const transitions: StackHealth[] = [];
  const summaries: StackHealth[][] = [];
  const report = {
    status: (status: StackStatus) => void statuses.set(status.stackId, status),
    event: async (event: AttemptEvent) => {
      if (!events.some(({ attemptId }) => attemptId === event.attemptId)) events.push(event);
    },
    health: (items: StackHealth[], kind: 'summary' | 'transition') => {
      if (kind === 'summary') summaries.push(items);
      else transitions.push(...items);
    },
  };
  const until: TestBroker['until'] = async (what, condition, ms = 20_000) => {
    const end = clock.monotonic() + ms;
    const { signal } = new AbortController();
    while (!condition()) {
      if (clock.monotonic() > end) {
        const known = [...statuses.values()].map(
          (s) => `${Phase[s.phase]} ${s.appliedGeneration}/${s.receivedGeneration} ${s.message}`,
        );
        const told = events.map((e) => `${e.eventType} ${e.generation} ${e.success} ${e.message}`);
        throw new Error(`not ${what} in time; statuses: ${known.join(' | ')}; events: ${told.join(' | ')}`);
      }
      await clock.sleep(10, signal);
    }
  };
  return { events, statuses, transitions, summaries, report, until };
}
