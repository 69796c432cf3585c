import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { dump } from 'js-yaml';
import { freePort } from '../../hack/kube/ports.ts';
import { startProcess, temporaryDirectory } from '../processes.ts';
import { prometheusProgram } from './promtool.ts';

/** A value with its labels, as Prometheus answers a query. */
export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

/** A Prometheus that scrapes every second. */
export interface TestPrometheus {
  /** Evaluates an expression now. Rejects when it cannot be. */
  query(expr: string): Promise<readonly Sample[]>;
  /** Any other question of its API (prometheus.io, "HTTP API"). */
  api<T>(path: string): Promise<T>;
}

/** Starts Debian's Prometheus on jobs, each with its `host:port`s, and rule files; stopped at the end of the file. */
export async function startPrometheus(
  jobs: Readonly<Record<string, readonly string[]>>,
  ruleFiles: readonly string[],
): Promise<TestPrometheus> {
  const dir = await temporaryDirectory();
  const file = join(dir, 'prometheus.yaml');
  await mkdir(join(dir, 'data'));
  const scrapes = Object.entries(jobs).map(([job, targets]) => ({ job_name: job, static_configs: [{ targets }] }));
  const global = { scrape_interval: '1s', evaluation_interval: '1s' };
  await writeFile(file, dump({ global, rule_files: ruleFiles, scrape_configs: scrapes }, { noRefs: true }));
  const address = `127.0.0.1:${await freePort()}`;
  const files = [`--config.file=${file}`, `--storage.tsdb.path=${join(dir, 'data')}`];
  const program = await prometheusProgram('prometheus');
  const running = await startProcess([program], [...files, `--web.listen-address=${address}`, '--log.format=json'], {});
  await running.line(({ msg }) => msg === 'Server is ready to receive web requests.');
  const api: TestPrometheus['api'] = async (path) => {
    const answer = (await (await fetch(`http://${address}/api/v1/${path}`)).json()) as { data: never; error?: string };
    if (answer.error !== undefined) throw new Error(`${decodeURIComponent(path)}: ${answer.error}`);
    return answer.data;
  };
  return {
    api,
    query: async (expr) => (await api<{ result: readonly Sample[] }>(`query?query=${encodeURIComponent(expr)}`)).result,
  };
}
