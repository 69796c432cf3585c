import { type Bench, percentile, type Result } from './bench.ts';
import { residentBytes, startBroker } from './environment.ts';
import { bareFleet, scriptedAgents } from './fan-out.ts';

const SESSIONS = 1000;
const ROUNDS = 12;
const WARM_UP = 3;

/** Memory and fan-out of many sessions on one broker, against a bare HTTP/2 server that sends 4 KiB to as many streams. */
export const bench: Bench = {
  name: 'streams',
  about: `${SESSIONS} sessions on one broker: memory a session and fan-out of a 4 KiB change; baseline: bare node:http2`,
  async run(note, signal) {
    const bare = await bareFleet(SESSIONS);
    const bareTimes: number[] = [];
    for (let round = 0; round < ROUNDS; round++) bareTimes.push(await bare.broadcast(4096));
    const bareBytes = bare.bytesPerStream;
    await bare.close();
    note(
      `bare: ${(bareBytes / 1024).toFixed(0)} KiB a stream, fan-out p99 ${percentile(bareTimes.slice(WARM_UP), 0.99).toFixed(0)} ms`,
    );
    await using broker = await startBroker();
    const before = await residentBytes(broker.pid);
    using fleet = await scriptedAgents(broker, SESSIONS);
    const perSession = ((await residentBytes(broker.pid)) - before) / SESSIONS;
    const times: number[] = [];
    const payload = 'x'.repeat(3800);
    for (let round = 0; round < ROUNDS; round++) {
      signal.throwIfAborted();
      const all = fleet.allAt(round + 1);
      await broker.call(
        'PUT',
        '/api/v1/stacks/by-name/fleet/apply?label=fleet',
        `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fleet}\ndata: {round: "${round}", payload: ${payload}}\n`,
        'application/yaml',
      );
      const start = performance.now(); // the publication is acknowledged; what follows is fan-out
      await all;
      if (round >= WARM_UP) times.push(performance.now() - start);
    }
    const p99 = percentile(times, 0.99);
    const bareP99 = percentile(bareTimes.slice(WARM_UP), 0.99);
    const results: Result[] = [
      {
        metric: 'memory a session',
        value: perSession / 1024,
        unit: 'KiB',
        baseline: bareBytes / 1024,
        ratio: perSession / bareBytes,
        budget: '≤ 1.6 × at 10,000',
      },
      {
        metric: 'fan-out of 4 KiB, p99',
        value: p99,
        unit: 'ms',
        baseline: bareP99,
        ratio: p99 / bareP99,
        budget: '≤ 1.5 × at 10,000',
      },
    ];
    return results;
  },
};
