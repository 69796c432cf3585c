import { callsText, countOf } from './api-calls.ts';
import { type ApplyRig, makeNamespaces, OBJECTS, pause } from './apply-syncs.ts';
import { median, type Result } from './bench.ts';
import { startMeasuredAgent } from './cluster-agent.ts';
import { cpuMs, mixedDocuments, publishSmallStacks, residentBytes } from './environment.ts';

const LARGE = 5000;
const RESTARTS = 3;
const SMALL_STACKS = 20;
/** An idle agent has given back what its start took: its YAML thread goes after 30 s. */
const REST_MS = 45_000;
/** In place of the half hour of T36. */
const IDLE_MS = 60_000;
/** Every object is looked at once a day, in batches of about 32 of one stack; two may fall into one minute. */
const VERIFIED_PER_MS = 1 / 86_400_000;
const BATCHES = 2 * 40;

/** The agent's process ends and starts again while nothing changed. `kappMs`: kapp's run over 1,000 unchanged objects. */
export async function restart(rig: ApplyRig, kappMs: number): Promise<Result[]> {
  const times: number[] = [];
  let writes = 0;
  for (let round = 0; round < RESTARTS; round++) {
    rig.signal.throwIfAborted();
    await rig.agent.stop();
    const mark = await rig.calls.mark();
    const { startedAtMs, openedMs } = await rig.agent.start();
    await pause(2_000);
    const calls = await rig.calls.since(mark, rig.sides.agent.userAgent);
    times.push(Math.max(openedMs, calls.lastListAtMs - startedAtMs));
    writes += countOf(calls, 'dry-run', 'apply', 'inventory write', 'other write');
    rig.note(`restart: session after ${openedMs} ms, up to date after ${times.at(-1)} ms: ${callsText(calls)}`);
  }
  const ms = median(times);
  return [
    {
      metric: 'restart of the agent: process start to session open and every kind listed, against kapp',
      value: ms,
      unit: 'ms',
      baseline: kappMs,
      ratio: ms / kappMs,
      budget: '≤ 1 s',
      met: ms <= 1000,
    },
    { metric: 'writes in a restart of the agent', value: writes, unit: 'calls', budget: '0', met: writes === 0 },
  ];
}

/** 5,000 objects in one stack; `smallRate` is the rate with 1,000. */
export async function large(rig: ApplyRig, smallRate: number): Promise<Result[]> {
  const text = mixedDocuments(LARGE, await makeNamespaces(rig, 'large'));
  const rate = LARGE / ((await rig.sides.agent.apply('large', text)) / 1000);
  const memory = await residentBytes(rig.agent.pid);
  rig.note(`${LARGE} objects: ${rate.toFixed(0)}/s, ${(memory / 1e6).toFixed(0)} MB`);
  return [
    {
      metric: `first sync of ${LARGE} objects, against ${OBJECTS}`,
      value: rate,
      unit: 'objects/s',
      baseline: smallRate,
      ratio: rate / smallRate,
      budget: '≥ 0.8 ×',
      met: rate >= 0.8 * smallRate,
    },
    {
      metric: `memory of the agent after ${LARGE} objects`,
      value: memory / 1e6,
      unit: 'MB',
      budget: '≤ 200 MB',
      met: memory <= 200e6,
    },
  ];
}

/** Nothing happens: the agent with all objects of this bench for a minute, beside it one with 20 small stacks. */
export async function idle(rig: ApplyRig): Promise<Result[]> {
  await using small = await startMeasuredAgent(rig.broker, rig.plane, { name: 'small', labels: ['small'] });
  await publishSmallStacks(rig.broker, SMALL_STACKS, 'small');
  await pause(REST_MS);
  rig.signal.throwIfAborted();
  const mark = await rig.calls.mark();
  const before = await cpuMs(rig.agent.pid);
  await pause(IDLE_MS);
  const cpu = ((await cpuMs(rig.agent.pid)) - before) / IDLE_MS;
  const calls = await rig.calls.since(mark, rig.sides.agent.userAgent);
  rig.note(`idle for ${IDLE_MS / 1000} s: ${callsText(calls)}`);
  const objects = LARGE + 3 * OBJECTS + SMALL_STACKS * 10;
  const trickle = Math.ceil(objects * VERIFIED_PER_MS * IDLE_MS) + BATCHES;
  const reads = countOf(calls, 'get', 'list');
  const writes = countOf(calls, 'dry-run', 'apply', 'inventory write', 'other write');
  const memory = await residentBytes(small.pid);
  const largeMemory = await residentBytes(rig.agent.pid);
  return [
    {
      metric: `CPU of the agent, idle with ${LARGE + 3 * OBJECTS} objects, over ${IDLE_MS / 1000} s`,
      value: cpu * 100,
      unit: '% of a core',
      budget: '< 1 %',
      met: cpu < 0.01,
    },
    {
      metric: 'writes and reads of idle agents, watches and Leases aside',
      value: reads + writes,
      unit: 'calls',
      budget: `≤ ${trickle}: the verification trickle, which comes in batches`,
      met: writes === 0 && reads <= trickle,
    },
    {
      metric: `memory of the agent, idle with ${LARGE + 3 * OBJECTS} objects`,
      value: largeMemory / 1e6,
      unit: 'MB',
      budget: '≤ 200 MB',
      met: largeMemory <= 200e6,
    },
    {
      metric: `memory of an agent, idle with ${SMALL_STACKS} stacks`,
      value: memory / 1e6,
      unit: 'MB',
      budget: '≤ 90 MB',
      met: memory <= 90e6,
    },
  ];
}
