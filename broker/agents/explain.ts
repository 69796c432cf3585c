import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import {
  type ExplainTargetsRequest,
  type TargetExplanationSchema,
  TargetMethod,
  type TargetRuleSchema,
} from '#proto/brokkr/v1/agents_pb.js';
import { SelectorSchema } from '#proto/brokkr/v1/targeting_pb.js';
import type { Query } from '../api/command.ts';
import { timestampMs } from '../database.ts';
import { decodeOptions } from '../stacks/options.ts';
import { toTimestamp } from '../stacks/rows.ts';
import { assertOwner, notFound } from '../stacks/stacks.ts';
import { findStack } from '../stacks/store.ts';
import { clausesOf } from '../targeting/selector.ts';
import type { Acceptance } from '../targeting/store.ts';
import { type AgentTraits, foundText, nearestClause, termText } from '../targeting/terms.ts';
import { listPairs, type MatchedRule, type PairRow } from './explain-store.ts';
import { getAgent } from './store.ts';

type Rule = MessageInitShape<typeof TargetRuleSchema>;

const DEFAULT_LIMIT = 100;
/** Words that differ in this many letters at most are taken for a slip of the pen. */
const MAX_SLIPS = 2;

/**
 * Why stacks do or do not reach agents. A generator asks about its own stacks and about agents they can reach. Throws
 * `stack_not_found`, `stack_not_owned`, `agent_not_found` and `agent_not_registered` for ids that were given.
 */
export async function explainTargets(
  query: Query,
  request: ExplainTargetsRequest,
  acceptance: Acceptance,
): Promise<MessageInitShape<typeof TargetExplanationSchema>[]> {
  const { db, principal } = query;
  const generatorId = principal.kind === 'generator' ? principal.generatorId : undefined;
  const agentId = request.agentId || undefined;
  const stackId = request.stackId || undefined;
  if (stackId !== undefined) await assertOwnStack(query, stackId);
  const pairs = await listPairs(db, { agentId, stackId, generatorId, acceptance, limit: request.limit || DEFAULT_LIMIT });
  if (pairs.length === 0 && agentId !== undefined) {
    await getAgent(db, agentId);
    if (stackId !== undefined)
      throw new BrokkrError('agent_not_registered', `agent ${agentId} is not registered with the stack's generator`);
  }
  return pairs.map(explainPair);
}

/** What one pair's rules and states come to. */
function explainPair(pair: PairRow): MessageInitShape<typeof TargetExplanationSchema> {
  const withheld = pair.matched.length === 0 ? '' : withholding(pair);
  return {
    agentId: pair.agent_id,
    agentName: pair.agent_name,
    stackId: pair.stack_id,
    stackName: pair.stack_name,
    assigned: pair.matched.length > 0 && withheld === '',
    matched: pair.matched.map((rule) => matchedRule(rule, pair)),
    nearly: [...nearLabels(pair), ...nearAnnotations(pair), ...nearSelector(pair), ...noRules(pair)],
    withheld,
    paused: pair.paused_here || decodeOptions(pair.stack_options).paused,
    consent: consentOf(pair),
    generation: withheld === '' ? BigInt(pair.generation ?? 0) : 0n,
    ...(pair.held && { heldGeneration: BigInt(pair.head) }),
    ...(pair.opens !== null && { heldUntil: toTimestamp(pair.opens) }),
    release: pair.release_reason ?? '',
    connected: pair.connected,
  };
}

function consentOf({ acceptance, registered, generator_name }: PairRow): string {
  if (acceptance === 'all') return 'the agent takes stacks of every generator';
  return `the agent is ${registered ? '' : 'not '}registered with generator ${generator_name}`;
}

/** Same conditions as `listAssigned`, in words. */
function withholding(pair: PairRow): string {
  const reasons = [
    pair.agent_deleted && 'the agent is deleted',
    pair.agent_status === 'INACTIVE' && 'the agent is INACTIVE',
    pair.stack_deleted && 'the stack is deleted',
    !pair.has_content && 'the stack has no content',
    pair.held && pair.generation === null && heldText(pair),
    pair.acceptance === 'registered' && !pair.registered && consentOf(pair),
  ];
  return reasons.filter((reason) => reason !== false).join('; ');
}

function heldText({ head, opens }: PairRow): string {
  const until = opens === null ? 'its gate opens' : new Date(timestampMs(opens)).toISOString();
  return `generation ${head} is held until ${until}, and there is no earlier one that may be delivered`;
}

function matchedRule({ method, detail }: MatchedRule, pair: PairRow): Rule {
  switch (method) {
    case 'direct':
      return { method: TargetMethod.DIRECT, detail: 'assigned directly' };
    case 'label':
      return { method: TargetMethod.LABEL, detail: `label ${detail} is on both` };
    case 'annotation':
      return { method: TargetMethod.ANNOTATION, detail: `annotation ${detail} is on both` };
    case 'selector': {
      const clause = nearest(pair)?.clause ?? [];
      return { method: TargetMethod.SELECTOR, detail: `selector: ${clause.map(termText).join(' and ')}` };
    }
  }
}

/** Labels that differ by a slip; failing that, and when no label matched, what either side has. */
function nearLabels({ matched, stack_labels: wanted, agent_labels: present }: PairRow): Rule[] {
  const missing = wanted.filter((label) => !present.includes(label));
  const slips = missing.flatMap((label) => {
    const similar = mostSimilar(label, present);
    return similar
      ? [{ method: TargetMethod.LABEL, detail: `stack has label ${label}, agent has ${similar.word}: ${similar.difference}` }]
      : [];
  });
  if (slips.length > 0 || missing.length === 0 || matched.some(({ method }) => method === 'label')) return slips;
  const had = present.length === 0 ? 'no labels' : present.join(', ');
  return [{ method: TargetMethod.LABEL, detail: `stack has label ${missing.join(', ')}, agent has ${had}` }];
}

/** Every annotation of the stack that does not match, with what the agent has under that key. */
function nearAnnotations({ stack_annotations: wanted, agent_annotations: present }: PairRow): Rule[] {
  return Object.entries(wanted).flatMap(([key, value]) => {
    if (present[key] === value) return [];
    const rule = (detail: string) => [
      { method: TargetMethod.ANNOTATION, detail: `stack has annotation ${key}=${value}, agent has ${detail}` },
    ];
    if (present[key] !== undefined) return rule(`${key}=${present[key]}`);
    const similar = mostSimilar(key, Object.keys(present));
    return rule(similar ? `${similar.word}=${present[similar.word]}: ${similar.difference}` : `no annotation ${key}`);
  });
}

/** Of a selector that does not match, the alternative that is nearest: every term of it that fails, with what the agent has. */
function nearSelector(pair: PairRow): Rule[] {
  if (pair.matched.some(({ method }) => method === 'selector')) return [];
  const traits = traitsOf(pair);
  return (nearest(pair)?.failing ?? []).map((term) => ({
    method: TargetMethod.SELECTOR,
    detail: `selector wants ${termText(term)}, agent has ${foundText(term, traits)}`,
  }));
}

function nearest(pair: PairRow): ReturnType<typeof nearestClause> {
  return pair.selector === null ? undefined : nearestClause(clausesOf(fromBinary(SelectorSchema, pair.selector)), traitsOf(pair));
}

function traitsOf(pair: PairRow): AgentTraits {
  const { agent_labels: labels, agent_annotations: annotations, agent_capabilities, kubernetes_version } = pair;
  const { kubernetes_version: _, ...capabilities } = agent_capabilities;
  return { labels, annotations, capabilities: kubernetes_version ? { ...capabilities, kubernetes_version } : capabilities };
}

function noRules(pair: PairRow): Rule[] {
  const { matched, stack_labels, stack_annotations, selector } = pair;
  const none =
    matched.length === 0 && stack_labels.length === 0 && Object.keys(stack_annotations).length === 0 && selector === null;
  return none
    ? [
        {
          method: TargetMethod.DIRECT,
          detail: 'stack has no labels, no annotations and no selector, and is not assigned directly',
        },
      ]
    : [];
}

function mostSimilar(
  word: string,
  others: readonly string[],
): { readonly word: string; readonly difference: string } | undefined {
  const sameLetters = others.find((other) => other.toLowerCase() === word.toLowerCase());
  if (sameLetters !== undefined) return { word: sameLetters, difference: 'only the case differs' };
  const slips = Math.min(MAX_SLIPS, Math.floor(word.length / 3));
  const close = others
    .map((other) => ({ other, distance: editDistance(word.toLowerCase(), other.toLowerCase()) }))
    .filter(({ distance }) => distance <= slips)
    .sort((a, b) => a.distance - b.distance)[0];
  return (
    close && { word: close.other, difference: `${close.distance} ${close.distance === 1 ? 'letter differs' : 'letters differ'}` }
  );
}

/** Levenshtein's distance; words have 64 characters at most. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}

async function assertOwnStack({ db, principal }: Query, stackId: string): Promise<void> {
  const stack = await findStack(db, stackId);
  if (!stack) throw notFound(stackId);
  assertOwner(principal, stack);
}
