import { type CallCounter, callsText, countOf } from './api-calls.ts';
import { publishAndWait, SIDES, type Side, type SideName } from './apply-sides.ts';
import { median, type Result } from './bench.ts';
import type { MeasuredControlPlane } from './cluster.ts';
import type { MeasuredAgent } from './cluster-agent.ts';
import { type MeasuredBroker, mixedDocuments } from './environment.ts';

/** Objects of every set but the large one. */
export const OBJECTS = 1000;
const ROUNDS = 3;
const NAMESPACES = 10;
/** Between two turns, so that nobody pays for what the one before left behind. */
const SETTLE_MS = 3_000;
/** The peers that are programs of their own. */
const PEERS = ['kubectl', 'flux', 'kapp'] as const;

/** What the steps of the bench share. */
export interface ApplyRig {
  readonly broker: MeasuredBroker;
  readonly plane: MeasuredControlPlane;
  readonly agent: MeasuredAgent;
  readonly sides: Readonly<Record<SideName, Side>>;
  readonly calls: CallCounter;
  readonly note: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Rates of the first sync by side, in objects a second; medians. */
export type Rates = Readonly<Record<SideName, number>>;

/** Every side applies 1,000 new objects into fresh namespaces of the same server, three times in changing order. */
export async function firstSync(rig: ApplyRig): Promise<{ readonly rates: Rates; readonly results: readonly Result[] }> {
  const rates = perSide();
  const serverMs = perSide();
  for (let round = 0; round < ROUNDS; round++) {
    // the server slows down as it fills: nobody is always first
    for (const side of rotated(SIDES, round)) {
      rig.signal.throwIfAborted();
      const text = mixedDocuments(OBJECTS, await makeNamespaces(rig, `${side}-${round}`));
      const cpu = await rig.plane.serverCpuMs();
      rates[side].push(OBJECTS / ((await rig.sides[side].apply(`${side}-${round}`, text)) / 1000));
      await pause(SETTLE_MS);
      serverMs[side].push(((await rig.plane.serverCpuMs()) - cpu) / OBJECTS);
    }
    rig.note(`round ${round}: ${SIDES.map((side) => `${side} ${rates[side][round]?.toFixed(0)}/s`).join(', ')}`);
  }
  const medians = Object.fromEntries(SIDES.map((side) => [side, median(rates[side])])) as Record<SideName, number>;
  const server = { agent: median(serverMs.agent), kubectl: median(serverMs.kubectl) };
  const against = (side: SideName, least?: number): Result => {
    const ratio = medians.agent / medians[side];
    const judged = least === undefined ? { budget: 'written down' } : { budget: `≥ ${least} ×`, met: ratio >= least };
    return {
      metric: `first sync against ${side}`,
      value: medians.agent,
      unit: 'objects/s',
      baseline: medians[side],
      ratio,
      ...judged,
    };
  };
  const results: Result[] = [
    against('bare', 0.8),
    against('kubectl', 2.5),
    against('flux', 2.5),
    against('kapp'),
    {
      metric: 'CPU of etcd and API server in the first sync, against kubectl',
      value: server.agent,
      unit: 'ms/object',
      baseline: server.kubectl,
      ratio: server.agent / server.kubectl,
      budget: '≤ 1 ×',
      met: server.agent <= server.kubectl,
    },
  ];
  return { rates: medians, results };
}

/** The first round's objects once more: the same text, and the same objects under a new generation. */
export async function unchanged(rig: ApplyRig): Promise<{ readonly kappMs: number; readonly results: readonly Result[] }> {
  const results: Result[] = [];
  let kappMs = 0;
  for (const side of PEERS) {
    const mark = await rig.calls.mark();
    const ms = await rig.sides[side].apply(`${side}-0`, mixedDocuments(OBJECTS, namespaceNames(`${side}-0`)));
    const calls = await rig.calls.since(mark, rig.sides[side].userAgent);
    if (side === 'kapp') kappMs = ms;
    rig.note(`unchanged, ${side}: ${ms.toFixed(0)} ms, ${callsText(calls)}`);
    results.push({ metric: `calls when nothing changed, ${side}`, value: calls.total, unit: 'calls', budget: 'written down' });
  }
  const text = mixedDocuments(OBJECTS, namespaceNames('agent-0'));
  for (const { what, again, inventoryWrites } of [
    { what: 'the same text', again: text, inventoryWrites: 0 },
    { what: 'a new generation of the same objects', again: `# nothing new\n${text}`, inventoryWrites: 1 },
  ]) {
    const mark = await rig.calls.mark();
    await publishAndWait(rig.broker, 'agent-0', again);
    await pause(SETTLE_MS);
    const calls = await rig.calls.since(mark, rig.sides.agent.userAgent);
    rig.note(`unchanged, agent, ${what}: ${callsText(calls)}`);
    const others = countOf(calls, 'dry-run', 'apply', 'other write', 'get', 'list');
    const inventory = countOf(calls, 'inventory write');
    results.push({
      metric: `writes and reads when nothing changed, agent, ${what}`,
      value: others + inventory,
      unit: 'calls',
      budget: inventoryWrites === 0 ? '0' : '0, the head of the inventory aside',
      met: others === 0 && inventory <= inventoryWrites,
    });
  }
  return { kappMs, results };
}

/** One ConfigMap of the first round's objects changes. */
export async function oneChanged(rig: ApplyRig): Promise<Result[]> {
  const textOf = (side: SideName) =>
    mixedDocuments(OBJECTS, namespaceNames(`${side}-0`)).replace('generation: "1"', 'generation: "changed"');
  const results: Result[] = [];
  for (const side of PEERS) {
    const ms = await rig.sides[side].apply(`${side}-0`, textOf(side));
    results.push({ metric: `1 of 1,000 changed, ${side}`, value: ms, unit: 'ms', budget: 'written down' });
  }
  const mark = await rig.calls.mark();
  const ms = await rig.sides.agent.apply('agent-0', textOf('agent'));
  await pause(SETTLE_MS);
  const calls = await rig.calls.since(mark, rig.sides.agent.userAgent);
  rig.note(`1 of 1,000 changed, agent: ${ms.toFixed(0)} ms, ${callsText(calls)}`);
  const expected =
    countOf(calls, 'dry-run') === 1 &&
    countOf(calls, 'apply') === 1 &&
    countOf(calls, 'inventory write') <= 2 &&
    countOf(calls, 'other write', 'get', 'list') === 0;
  return [
    ...results,
    { metric: '1 of 1,000 changed, agent', value: ms, unit: 'ms', budget: 'written down' },
    {
      metric: 'writes and reads for 1 changed object, agent',
      value: countOf(calls, 'dry-run', 'apply', 'inventory write', 'other write', 'get', 'list'),
      unit: 'calls',
      budget: '1 dry-run, 1 apply, 2 inventory writes',
      met: expected,
    },
  ];
}

/** Ten empty namespaces, so that nobody pays for making them. */
export async function makeNamespaces({ plane }: ApplyRig, prefix: string): Promise<string[]> {
  const names = namespaceNames(prefix);
  for (const name of names)
    await plane.request('POST', '/api/v1/namespaces', JSON.stringify({ metadata: { name } }), {
      'content-type': 'application/json',
    });
  return names;
}

/** Resolves after a time. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function namespaceNames(prefix: string): string[] {
  return Array.from({ length: NAMESPACES }, (_, index) => `${prefix}-${index}`);
}

function perSide(): Record<SideName, number[]> {
  return { bare: [], kubectl: [], flux: [], kapp: [], agent: [] };
}

function rotated<T>(items: readonly T[], by: number): T[] {
  return items.map((_, index) => items[(index + by) % items.length] as T);
}
