import { describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { eventOf, eventually, stackOf, startAgentSide } from '../test/agent-side.ts';
import { type Network, startScriptedBroker } from '../test/scripted-broker.ts';
import { Supervisor } from './session/supervisor.ts';
import { carriesStreams } from './transport/stream.ts';

const A = '00000000-0000-4000-8000-00000000000a';
const B = '00000000-0000-4000-8000-00000000000b';

describe.each<Network>(['http1', 'buffering'])('behind a proxy that is %s', (obstacle) => {
  it('polls by itself, gets the same updates, and returns to the stream when the obstacle goes', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    broker.network = obstacle;
    const stop = new AbortController();
    const supervisor = new Supervisor(
      {
        clock: systemClock,
        log: createLog('test', { level: 'fatal' }),
        random: () => 0.05,
        start: (tier, signal) => agent.start(tier, signal),
        probe: (signal) => carriesStreams(agent.endpoint, AbortSignal.any([signal, AbortSignal.timeout(300)])).catch(() => false),
        suspend: () => undefined,
        resume: () => undefined,
      },
      { transport: 'auto', probeIntervalMs: 4_000 },
    );
    const done = supervisor.run(stop.signal);
    await eventually(() => supervisor.state.kind === 'up');
    expect(supervisor.state.tier).toBe('poll');
    const polling = broker.sessions.at(-1)!;
    polling.say({ case: 'upsert', value: stackOf(A, 1n, ['one']).inline });
    await eventually(() => agent.offers.length === 1);
    await agent.deps.reports.event(eventOf('first'));
    await eventually(() => polling.said('events').length > 0);

    broker.network = 'open';
    await eventually(() => supervisor.state.kind === 'up' && supervisor.state.tier === 'stream');
    const streaming = broker.sessions.at(-1)!;
    expect(streaming.tier).toBe('stream');
    expect(streaming.hello.resume).toMatchObject({ entries: 1, lastEventSeq: 1n });
    streaming.say({ case: 'upsert', value: stackOf(B, 1n, ['two']).inline });
    await eventually(() => agent.offers.length === 2);
    const before = broker.polls.count;
    await agent.deps.reports.event(eventOf('second'));
    await eventually(() => streaming.said('events').some(({ events }) => events.at(-1)?.attemptId === 'second'));
    expect(broker.polls.count).toBe(before);
    stop.abort(new Error('test over'));
    await done;
  });
});
