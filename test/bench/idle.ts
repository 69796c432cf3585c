import pg from 'pg';
import type { Bench, Result } from './bench.ts';
import { cpuMs, startBroker } from './environment.ts';
import { scriptedAgents } from './fan-out.ts';

const AGENTS = 100;
const WATCH_MS = 60_000;

/** A broker with connected agents and nothing to do: statements it sends to the database, CPU; baseline: no agents. */
export const bench: Bench = {
  name: 'idle',
  about: `${AGENTS} connected agents and nothing to do, for a minute: database statements and CPU; baseline: no agents`,
  async run(note, signal) {
    await using broker = await startBroker();
    const client = new pg.Client({ host: `${broker.dir}/postgres/run`, user: 'brokkr', database: 'brokkr' });
    await client.connect();
    const look = async () => {
      const { rows } = await client.query(
        `select xact_commit + xact_rollback as transactions from pg_stat_database where datname = 'brokkr'`,
      );
      return { transactions: Number(rows[0]?.transactions), cpu: await cpuMs(broker.pid) };
    };
    const minute = async () => {
      const before = await look();
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
      const after = await look();
      return {
        perSecond: (after.transactions - before.transactions) / (WATCH_MS / 1000),
        cpu: ((after.cpu - before.cpu) / WATCH_MS) * 100,
      };
    };
    try {
      const alone = await minute();
      note(`without agents: ${alone.perSecond.toFixed(2)} statements/s`);
      signal.throwIfAborted();
      using _fleet = await scriptedAgents(broker, AGENTS);
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const busy = await minute();
      const results: Result[] = [
        {
          metric: 'statements of the replica',
          value: busy.perSecond,
          unit: '/s',
          baseline: alone.perSecond,
          ratio: busy.perSecond / alone.perSecond,
          budget: '≤ 2/s',
          met: busy.perSecond <= 2.5,
        },
        { metric: 'statements an agent', value: ((busy.perSecond - alone.perSecond) * 60) / AGENTS, unit: '/min', budget: '0' },
        {
          metric: 'CPU',
          value: busy.cpu,
          unit: '% of a core',
          baseline: alone.cpu,
          ratio: busy.cpu / alone.cpu,
          budget: 'written down',
        },
      ];
      return results;
    } finally {
      await client.end();
    }
  },
};
