import { readFile } from 'node:fs/promises';
import { OWNER_ANNOTATION, STACK_LABEL, stackIdentity } from '../../agent/stack-identity.ts';
import type { AuditEvent } from '../kube-audit.ts';
import { documentOf, type Json } from './documents.ts';
import { type Item, itemPath, itemText, STACKS, type StackItems } from './items.ts';
import type { StackState, Target } from './operations.ts';
import type { World } from './world.ts';

interface Live {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
}

/** What of the cluster and of the broker's record differs from the target; empty when all is as it should be. */
export async function differences(world: World, target: Target, signal: AbortSignal): Promise<string[]> {
  const wanted = new Map<string, { readonly item: Item; readonly revision: number; readonly stack: StackItems }>();
  for (const [stack, state] of target) {
    if (!state?.targeted) continue;
    for (const [item, revision] of state.wanted) wanted.set(itemText(item), { item, revision, stack });
  }
  return [
    ...(await unlikeTarget(world, [...wanted.values()])),
    ...(await leaked(world, target, new Set(wanted.keys()))),
    ...(await leakedInventories(world)),
    ...(await unlikeStatus(world, target, signal)),
  ];
}

/** Objects that a guard protects and that the agent deleted all the same, by the audit log. */
export async function forbiddenDeletions({ kube, agentUser }: World): Promise<string[]> {
  const guarded = new Map(
    STACKS.flatMap(({ items }) => items.filter(({ guard }) => guard)).map((item) => [itemPath(item), item]),
  );
  const text = await readFile(kube.auditLogPath, 'utf8');
  return text.split('\n').flatMap((line) => {
    if (!line.includes('"verb":"delete"')) return [];
    const event = parsed(line);
    const item = event && guarded.get(event.requestURI.split('?')[0] ?? '');
    if (!item || event.user.username !== agentUser || (event.responseStatus?.code ?? 500) >= 300) return [];
    return [`${itemText(item)} was deleted at ${event.requestReceivedTimestamp} though guarded by ${item.guard}`];
  });
}

/** The log of a server that was killed may end in half a line. */
function parsed(line: string): AuditEvent | undefined {
  try {
    return JSON.parse(line) as AuditEvent;
  } catch {
    return undefined;
  }
}

async function unlikeTarget(
  { kube, agentId, agentNamespace, stackIds }: World,
  wanted: readonly { readonly item: Item; readonly revision: number; readonly stack: StackItems }[],
): Promise<string[]> {
  const problems = await Promise.all(
    wanted.map(async ({ item, revision, stack }) => {
      const { status, body } = await kube.request('GET', itemPath(item));
      if (status !== 200) return [`${itemText(item)} of ${stack.name} is missing (${status})`];
      const live = body as Live;
      if (live.metadata.deletionTimestamp !== undefined) return [`${itemText(item)} is being deleted`];
      const { short } = stackIdentity(agentId, stackIds.get(stack) ?? '', agentNamespace);
      const label = live.metadata.labels?.[STACK_LABEL];
      const owner = label === short ? [] : [`${itemText(item)} has the label ${label}, not ${short} of ${stack.name}`];
      return [...owner, ...unlike(documentOf(item, revision), live, itemText(item))];
    }),
  );
  return problems.flat();
}

/** Where `live` lacks what `wanted` says; fields that nobody wants do not count. Lists must have the same length. */
export function unlike(wanted: unknown, live: unknown, path: string): string[] {
  if (Array.isArray(wanted)) {
    if (!Array.isArray(live) || live.length !== wanted.length) return [`${path} is ${text(live)}, wanted ${text(wanted)}`];
    return wanted.flatMap((value, index) => unlike(value, live[index], `${path}[${index}]`));
  }
  if (typeof wanted === 'object' && wanted !== null) {
    const other = (typeof live === 'object' && live !== null ? live : {}) as Json;
    return Object.entries(wanted).flatMap(([key, value]) => unlike(value, other[key], `${path}.${key}`));
  }
  return wanted === live ? [] : [`${path} is ${text(live)}, wanted ${text(wanted)}`];
}

function text(value: unknown): string {
  return JSON.stringify(value) ?? 'missing';
}

/** Objects of any kind that carry the marks of a stack and that no stack wants; what a guard keeps may stay. */
async function leaked({ kube }: World, target: Target, wanted: ReadonlySet<string>): Promise<string[]> {
  const kinds = (await kube.kubectl('api-resources', '--verbs=list', '-o', 'name')).trim().split('\n');
  const names = kinds.filter((kind) => !kind.startsWith('componentstatuses'));
  const found = await kube.kubectl('get', names.join(','), '-A', '-l', STACK_LABEL, '-o', 'json', '--ignore-not-found');
  const items = found === '' ? [] : (JSON.parse(found) as { items: Live[] }).items;
  const guarded = new Set([...target].flatMap(([stack, state]) => guardedItems(stack, state)).map(itemText));
  return items.flatMap(({ kind, metadata: { name, namespace, annotations } }) => {
    if (!annotations?.[OWNER_ANNOTATION]) return []; // controllers copy the labels of a Service to its Endpoints
    const key = `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
    return wanted.has(key) || guarded.has(key) ? [] : [`${key} was leaked`];
  });
}

/** What may be left of a stack that does not want it. Where a stack is only no longer targeted nobody approved its deletions. */
function guardedItems({ items, allOrFew }: StackItems, state: StackState | undefined): readonly Item[] {
  const left = state !== undefined && !state.targeted;
  const precious = ({ kind }: Item) => kind === 'Namespace' || kind === 'CustomResourceDefinition';
  return items.filter((item) => item.guard !== undefined || (left && (allOrFew || precious(item))));
}

/** Inventories of stacks that do not exist any more. */
async function leakedInventories({ kube, agentId, agentNamespace, stackIds }: World): Promise<string[]> {
  const { body } = await kube.request('GET', `/api/v1/namespaces/${agentNamespace}/configmaps`);
  const heads = [...stackIds.values()].map((id) => stackIdentity(agentId, id, agentNamespace).headName);
  return (body.items as Live[])
    .map(({ metadata }) => metadata.name)
    .filter((name) => name.startsWith('brokkr-inv-') && !heads.some((head) => name.startsWith(head)))
    .map((name) => `inventory ${name} belongs to no stack`);
}

interface Status {
  readonly agents: readonly {
    readonly desired_generation: number;
    readonly applied_generation: number;
    readonly phase: string;
    readonly message: string | null;
  }[];
}

/** Stacks of which the broker does not know the newest generation as applied. */
async function unlikeStatus(world: World, target: Target, signal: AbortSignal): Promise<string[]> {
  const problems: string[] = [];
  for (const [stack, id] of world.stackIds) {
    if (!target.get(stack)?.targeted) continue;
    const { body } = await world.api<Status>('GET', `/api/v1/stacks/${id}/status`, undefined, signal);
    const [agent] = body.agents ?? [];
    if (!agent) problems.push(`stack ${stack.name} reaches no agent`);
    else if (agent.phase !== 'applied' || agent.applied_generation !== agent.desired_generation) {
      const { phase, applied_generation: applied, desired_generation: desired, message } = agent;
      problems.push(`stack ${stack.name} is ${phase} at ${applied} of ${desired}: ${message ?? ''}`);
    }
  }
  return problems;
}
