import { createHash } from 'node:crypto';
import { compile } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import { type PartialFacts, resolveFacts } from '#flows/model/facts.ts';
import type { Facts, Model } from '#flows/model/model.ts';
import { changesBetween, type PublishedChange } from '#flows/publish/changes.ts';
import { canonicalJson, isMapping, type Value } from '#lib/object.ts';
import { parseStream } from '#lib/yaml.ts';
import { AdoptionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from '../cli.ts';
import type { Client } from '../client.ts';
import { publishedText } from '../diff.ts';
import { CliError, EXIT, type ExitCode } from '../failure.ts';
import { counted } from '../show.ts';
import { agentFacts, type TargetedAgent, targetedAgents } from './agent-facts.ts';
import { type ModelOptions, modelOf, readModelSource, told } from './model-source.ts';

/** Options of `brokkr flows publish`. */
export interface PublishOptions extends ModelOptions {
  /** Labels of the agents that get it. */
  readonly target: readonly string[];
  readonly confirmSeconds: number;
  readonly yes?: boolean;
  readonly approveGained?: boolean;
  readonly approveLost?: boolean;
  readonly dryRun?: boolean;
}

/** One stack to publish: the policies for all clusters with the same facts. */
interface Part {
  readonly stack: string;
  readonly model: Model;
  readonly text: string;
  /** Whom it is assigned to by id; undefined when labels decide. */
  readonly agents: readonly TargetedAgent[] | undefined;
  readonly changes: readonly PublishedChange[];
  /** Nothing of it was published before. */
  readonly isFirst: boolean;
}

/** Changes shown of one stack. */
const MAX_SHOWN = 50;
/** Stacks of a flow set that are looked through for ones that no cluster needs any more. */
const MAX_STACKS = 1000;

/**
 * `brokkr flows publish`: compiles a flow set for the clusters of the targeted agents, shows what becomes reachable and what does not any more,
 * and publishes. 3 when an approval is missing (nothing is published then), or when a dry run finds changes.
 */
export async function publish(cli: Cli, options: PublishOptions): Promise<ExitCode> {
  const client = await connect(cli);
  const parts = await partsOf(cli, client, options);
  for (const part of parts) tell(cli, part);
  const missing = missingApprovals(parts, options);
  for (const text of missing) cli.terminal.note(text);
  if (options.dryRun) return parts.some(({ changes }) => changes.length > 0) ? EXIT.differences : EXIT.ok;
  if (missing.length > 0) return EXIT.differences;
  for (const part of parts) await publishPart(cli, client, part, options);
  await release(cli, client, parts);
  return EXIT.ok;
}

async function partsOf(cli: Cli, client: Client, options: PublishOptions): Promise<Part[]> {
  const source = await readModelSource(options);
  const model = (facts: Facts) => told(async () => modelOf(cli, { ...source, facts }, options));
  if (Object.values(source.facts.sources).includes('declared')) {
    return [await partOf(cli, client, source.set.name, await model(source.facts), undefined)];
  }
  const agents = await targetedAgents(client, options.target, cli.signal);
  if (agents.length === 0) {
    throw new CliError('agent_not_found', `no agent has the label ${options.target.join(' or ')}`, {
      hint: 'label an agent, or name the facts of the cluster with --facts',
    });
  }
  const groups = Map.groupBy(agents, ({ network }) => canonicalJson(agentFacts(network) as unknown as Value));
  const parts = [...groups].map(async ([key, members]) => {
    const name = groups.size === 1 ? source.set.name : `${source.set.name}-${hash(key)}`;
    const discovered: PartialFacts = agentFacts(members[0]?.network);
    for (const { name: agent, network } of members) {
      for (const problem of network?.unknown ?? []) cli.terminal.note(`${agent}: not known, so assumed: ${problem}`);
      if (!network) cli.terminal.note(`${agent}: has not told the facts of its cluster, they are assumed`);
    }
    return partOf(cli, client, name, await model(resolveFacts({ facts: discovered, source: 'discovered' })), members);
  });
  return await Promise.all(parts);
}

async function partOf(cli: Cli, client: Client, stack: string, model: Model, agents: Part['agents']): Promise<Part> {
  const { objects } = await told(async () => compile(model));
  const text = policyText(objects);
  const before = await publishedText(client, stack, cli.signal);
  const changes = changesBetween(model, policiesOf(before), policiesOf(text));
  return { stack, model, text, agents, changes, isFirst: before === '' };
}

/** The NetworkPolicies of a text; others of a platform only add to what these allow. */
function policiesOf(text: string): Value[] {
  const values = parseStream(text).documents.map(({ value }) => value);
  return values.filter((value) => isMapping(value) && value.kind === 'NetworkPolicy');
}

function tell({ terminal }: Cli, { stack, agents, changes, model, isFirst }: Part): void {
  const whom = agents ? `: ${counted(agents.length, 'agent')}, ${agents.map(({ name }) => name).join(', ')}` : '';
  terminal.line(`${stack}${whom}`);
  const assumed = Object.entries(model.facts.sources).flatMap(([path, source]) => (source === 'assumed' ? [path] : []));
  if (assumed.length > 0) terminal.note(`${stack}: assumed facts: ${assumed.join(', ')}`);
  if (isFirst) {
    terminal.line(
      `  published for the first time: what no flow allows is closed, in ${counted(changes.length, 'group')} of connections`,
    );
    return;
  }
  const order = changes.toSorted((a, b) => Number(a.approval === '') - Number(b.approval === ''));
  for (const { change, src, dst, protocol, ports, approval } of order.slice(0, MAX_SHOWN)) {
    const text = `${change === 'gained' ? '+' : '-'} ${src} → ${dst} ${protocol} ${ports}${approval === '' ? '' : `  (${approval})`}`;
    terminal.line(`  ${terminal.paint(change === 'gained' ? 'green' : 'red', text)}`);
  }
  if (changes.length > MAX_SHOWN) terminal.line(`  and ${changes.length - MAX_SHOWN} more`);
}

function missingApprovals(parts: readonly Part[], { yes, approveGained, approveLost }: PublishOptions): string[] {
  const count = (kind: PublishedChange['change']) =>
    parts.flatMap(({ changes }) => changes).filter(({ change, approval }) => change === kind && approval !== '').length;
  const [gained, lost] = [count('gained'), count('lost')];
  return [
    ...(gained > 0 && !yes && !approveGained
      ? [`${counted(gained, 'connection')} gained from an untrusted zone: --approve-gained agrees`]
      : []),
    ...(lost > 0 && !yes && !approveLost
      ? [`${counted(lost, 'connection')} lost for a required flow: --approve-lost agrees`]
      : []),
  ];
}

async function publishPart(cli: Cli, client: Client, part: Part, { target, confirmSeconds }: PublishOptions): Promise<void> {
  const { stack: name, model, text, agents } = part;
  const labels = [flowSetLabel(model.name), ...(agents ? [] : target)];
  const request = {
    name,
    yamlContent: text,
    labels: { values: labels },
    agents: { values: agents?.map(({ id }) => id) ?? [] },
    // what is there already is left alone: going back could not restore it
    options: { confirmSeconds, adoption: AdoptionPolicy.REFUSE },
  };
  const { stack, result, targetedAgents: reached } = await client.call(StackService.method.apply, request, cli.signal);
  cli.terminal.line(`stack ${name} ${result}: generation ${stack?.generation ?? 0n}, ${counted(reached, 'agent')}`);
}

/** Takes earlier stacks of the flow set, made for facts that no cluster has any more, away from their agents. */
async function release(cli: Cli, client: Client, parts: readonly Part[]): Promise<void> {
  const [name] = parts.map(({ model }) => model.name);
  if (name === undefined) return;
  const label = flowSetLabel(name);
  const { stacks } = await client.call(StackService.method.listStacks, { label, limit: MAX_STACKS }, cli.signal);
  for (const stack of stacks) {
    if (parts.some((part) => part.stack === stack.name)) continue;
    const request = { name: stack.name, labels: { values: [label] }, agents: { values: [] } };
    const { result } = await client.call(StackService.method.apply, request, cli.signal);
    if (result !== 'unchanged') cli.terminal.line(`stack ${stack.name}: no cluster needs it any more, taken from its agents`);
  }
}

function flowSetLabel(name: string): string {
  return `flowset=${name}`;
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}
