import { type Timestamp, timestampDate, timestampMs } from '@bufbuild/protobuf/wkt';
import { Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { AgentStackStatus } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cell, type Colour, spanText } from './terminal.ts';

/** The name of an enum value as REST spells it in lower case: `PHASE_APPLIED` → `applied`; '-' for none. */
export function enumText(names: Readonly<Record<number, string>>, value: number): string {
  const name = names[value] ?? '';
  return value === 0 ? '-' : name.toLowerCase();
}

const PHASE_COLOURS: Partial<Record<Phase, Colour>> = {
  [Phase.APPLIED]: 'green',
  [Phase.FAILED]: 'red',
  [Phase.REFUSED]: 'red',
  [Phase.KEPT]: 'yellow',
  [Phase.ROLLED_BACK]: 'red',
};
const HEALTH_COLOURS: Partial<Record<Health, Colour>> = {
  [Health.HEALTHY]: 'green',
  [Health.DEGRADED]: 'yellow',
  [Health.FAILING]: 'red',
};

/** A phase, coloured. */
export function phaseCell(phase: Phase): Cell {
  const colour = PHASE_COLOURS[phase];
  const text = enumText(Phase, phase);
  return colour ? { text, colour } : text;
}

/** A health, coloured. */
export function healthCell(health: Health): Cell {
  const colour = HEALTH_COLOURS[health];
  const text = enumText(Health, health);
  return colour ? { text, colour } : text;
}

/** How long ago, or '-'. */
export function ageText(at: Timestamp | undefined, nowMs: number): string {
  return at ? spanText(Math.max(0, nowMs - timestampMs(at))) : '-';
}

/** RFC 3339 with milliseconds, or '-'. */
export function timeText(at: Timestamp | undefined): string {
  return at ? timestampDate(at).toISOString() : '-';
}

/** A generation that its gate holds back. */
export function heldText(generation: bigint, until: Timestamp | undefined): string {
  return `generation ${generation} is held${until ? ` until ${timeText(until)}` : ''}`;
}

/** `CLUSTER/NAME`, which also names an agent to every command. */
export function agentText(agent: AgentStackStatus): string {
  return `${agent.clusterName}/${agent.agentName}`;
}

/** An object for people: `apps Deployment shop/web`. */
export function objectText(object: Pick<ObjectStatus, 'group' | 'kind' | 'namespace' | 'name'>): string {
  const { group, kind, namespace, name } = object;
  return `${kind}${group === '' ? '' : `.${group}`} ${namespace === '' ? '' : `${namespace}/`}${name}`;
}

/** A number of things: `1 agent`, `2 agents`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
