import { systemClock } from '../../lib/clock.ts';
import { Operator, operationText } from './operations.ts';
import { createRandom } from './random.ts';
import { differences, forbiddenDeletions } from './verify.ts';
import { openWorld, type World } from './world.ts';

/** How long a soak runs and what it does. */
export interface SoakOptions {
  /** Fixes the sequence of operations. */
  readonly seed: number;
  /** No operation begins after this many milliseconds. */
  readonly forMs: number;
  /** No more operations than this. */
  readonly operations: number;
  /** Told each operation and the end; one call a line. */
  readonly progress: (line: string) => void;
}

/** What a soak found. */
export interface SoakResult {
  readonly operations: number;
  /** Until the cluster was as the target says and the agent calm after the last operation, in milliseconds. */
  readonly quietMs: number;
  /** Empty when the cluster equals the target, nothing leaked and no guard was passed by. */
  readonly problems: readonly string[];
  /** Operations, problems and the agent's last words, for the report of a failure. */
  readonly story: string;
}

/** The agent's own waits are shorter: 30 s for objects that are kept, 60 s for what depends on something else, 60 s for a server in trouble. */
const QUIET_TIMEOUT_MS = 180_000;
/** Between two looks. */
const LOOK_MS = 1_000;
/** Nobody does anything for this long, and the agent must not either. */
const CALM_MS = 5_000;

/** Lets the operator loose, then waits for quiet and compares. */
export async function soak({ seed, forMs, operations, progress }: SoakOptions): Promise<SoakResult> {
  await using world = await openWorld();
  const operator = new Operator(createRandom(seed));
  const { signal } = new AbortController();
  const lines: string[] = [];
  const begin = systemClock.monotonic();
  const tell = (line: string) => {
    const seconds = ((systemClock.monotonic() - begin) / 1000).toFixed(1);
    lines.push(`${seconds.padStart(7)} s  ${line}`);
    progress(lines.at(-1) ?? '');
  };
  let count = 0;
  while (count < operations && systemClock.monotonic() - begin < forMs) {
    const { operation, pauseMs } = operator.next();
    count += 1;
    tell(`${count} ${operationText(operation)}`);
    await world.perform(operation, signal);
    await systemClock.sleep(pauseMs, signal);
  }
  for (const { operation } of operator.rest()) {
    tell(`at the end: ${operationText(operation)}`);
    await world.perform(operation, signal);
  }
  const resting = systemClock.monotonic();
  const problems = await untilQuiet(world, operator, signal);
  const quietMs = systemClock.monotonic() - resting;
  problems.push(...(await forbiddenDeletions(world)));
  for (const problem of problems) tell(`problem: ${problem}`);
  tell(`${count} operations; quiet after ${(quietMs / 1000).toFixed(1)} s; ${problems.length} problems`);
  return { operations: count, quietMs, problems, story: [...lines, 'the agent at last:', ...world.agentLog()].join('\n') };
}

/** Waits until nothing differs and the agent writes nothing any more; returns what is wrong when the time is over. */
async function untilQuiet(world: World, { target }: Operator, signal: AbortSignal): Promise<string[]> {
  const end = systemClock.monotonic() + QUIET_TIMEOUT_MS;
  const look = () => differences(world, target, signal).catch((error: unknown) => [`cannot look: ${String(error)}`]);
  for (;;) {
    await systemClock.sleep(LOOK_MS, signal);
    let problems = await look();
    if (problems.length === 0) problems = [...(await lateWrites(world, signal)), ...(await look())];
    if (problems.length === 0 || systemClock.monotonic() >= end) return problems;
  }
}

/** What the agent writes although nobody does anything. Once it may: that workloads have become healthy is kept in the inventory. */
async function lateWrites(world: World, signal: AbortSignal): Promise<string[]> {
  const mark = await world.kube.auditMark();
  await systemClock.sleep(CALM_MS, signal);
  const verbs = ['create', 'update', 'patch', 'delete'];
  const writes = await world.kube.auditEvents({ user: world.agentUser, verbs, since: mark });
  const others = writes.filter(({ objectRef }) => objectRef?.resource !== 'leases');
  return others.map(({ verb, requestURI }) => `the agent still writes: ${verb} ${requestURI}`);
}
