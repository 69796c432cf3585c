import { createCallCounter } from './api-calls.ts';
import { idle, large, restart } from './apply-life.ts';
import { openSides, SIDES } from './apply-sides.ts';
import { type ApplyRig, firstSync, oneChanged, unchanged } from './apply-syncs.ts';
import type { Bench, Result } from './bench.ts';
import { startMeasuredControlPlane } from './cluster.ts';
import { startMeasuredAgent } from './cluster-agent.ts';
import { startBroker } from './environment.ts';

/**
 * The apply engine in all it does, on one API server and with default settings, against a client that only sends the patches,
 * kubectl, a program on Flux's library, and kapp. Nothing slows a client down but the server.
 */
export const bench: Bench = {
  name: 'apply',
  about: '1,000 and 5,000 objects: agent, bare client, kubectl, Flux ssa, kapp; nothing and one changed, restart, idle (8 min)',
  async run(note, signal) {
    await using broker = await startBroker();
    await using plane = await startMeasuredControlPlane({ audit: 'batch' });
    const sides = await openSides(broker, plane, note, signal);
    await using agent = await startMeasuredAgent(broker, plane, { name: 'bench', labels: ['bench'] });
    const calls = createCallCounter(plane);
    const rig: ApplyRig = { broker, plane, agent, sides, calls, note, signal };
    const begin = await calls.mark();
    const first = await firstSync(rig);
    const again = await unchanged(rig);
    const results = [
      ...first.results,
      ...again.results,
      ...(await oneChanged(rig)),
      ...(await restart(rig, again.kappMs)),
      ...(await large(rig, first.rates.agent)),
      ...(await idle(rig)),
    ];
    for (const side of SIDES) results.push(await throttled(rig, side, begin));
    return results;
  },
};

async function throttled({ calls, sides }: ApplyRig, side: (typeof SIDES)[number], begin: number): Promise<Result> {
  const { throttled: value } = await calls.since(begin, sides[side].userAgent);
  const judged = side === 'agent' ? { budget: '0', met: value === 0 } : { budget: 'written down' };
  return { metric: `answers with 429 in all steps, ${side}`, value, unit: 'calls', ...judged };
}
