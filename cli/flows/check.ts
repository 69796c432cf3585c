import type { Cli } from '../cli.ts';
import { type ModelOptions, modelOf, readModelSource, told } from './model-source.ts';

/** `brokkr flows check`: whether a flow set can be used, in every profile unless one is named. */
export async function check(cli: Cli, options: ModelOptions): Promise<void> {
  const source = await readModelSource(options);
  const { name, profiles } = source.set;
  const each = options.profile ?? profiles;
  const selections = each.length === 0 ? [[]] : each.map((profile) => [profile]);
  for (const profile of selections) {
    const model = await told(async () => modelOf(cli, source, { ...options, profile }));
    const counts = [
      `${model.zones.size} zones`,
      `${model.endpoints.size} endpoints`,
      `${model.flows.length} flows`,
      `${model.dropped.length} dropped`,
    ];
    cli.terminal.line(`${[name, ...profile].join(' ')}: ${counts.join(', ')}`);
  }
}
