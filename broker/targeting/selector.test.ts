import { randomInt } from 'node:crypto';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, it } from 'vitest';
import { BrokkrError } from '#lib/errors.ts';
import {
  type Selector,
  SelectorOperator,
  SelectorSchema,
  SelectorSource,
  type SelectorTerm,
} from '#proto/brokkr/v1/targeting_pb.js';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { clausesOf } from './selector.ts';
import { replaceSelector } from './selector-store.ts';
import { type AgentTraits, foundText, nearestClause, termHolds, termText, versionNumbers } from './terms.ts';

const { LABEL, ANNOTATION, CAPABILITY } = SelectorSource;
const { IN, NOT_IN, EXISTS, DOES_NOT_EXIST, GTE, LT } = SelectorOperator;
type Shape = MessageInitShape<typeof SelectorSchema>;

const selector = (shape: Shape) => create(SelectorSchema, shape);
const term = (source: SelectorSource, key: string, operator: SelectorOperator, ...values: string[]): Shape => ({
  term: { source, key, operator, values },
});
const traits = (given: Partial<AgentTraits>): AgentTraits => ({ labels: [], annotations: {}, capabilities: {}, ...given });
/** By the clauses, as the database does it. */
const holds = (shape: Shape, given: Partial<AgentTraits>) =>
  clausesOf(selector(shape)).some((clause) => clause.every((each) => termHolds(each, traits(given))));

describe('a term', () => {
  it.each([
    ['label in: one of the words', term(LABEL, '', IN, 'a', 'b'), { labels: ['b', 'c'] }, true],
    ['label in: none of them', term(LABEL, '', IN, 'a', 'b'), { labels: ['c'] }, false],
    ['label not in: none of them', term(LABEL, '', NOT_IN, 'a', 'b'), { labels: ['c'] }, true],
    ['label not in: one of them', term(LABEL, '', NOT_IN, 'a', 'b'), { labels: ['c', 'a'] }, false],
    ['label not in: no labels at all', term(LABEL, '', NOT_IN, 'a'), {}, true],
    ['label exists', term(LABEL, 'a', EXISTS), { labels: ['a'] }, true],
    ['label exists, another case', term(LABEL, 'a', EXISTS), { labels: ['A'] }, false],
    ['label does not exist', term(LABEL, 'a', DOES_NOT_EXIST), { labels: ['a'] }, false],
    ['annotation in', term(ANNOTATION, 'k', IN, '1', '2'), { annotations: { k: '2' } }, true],
    ['annotation in, another value', term(ANNOTATION, 'k', IN, '1'), { annotations: { k: '2' } }, false],
    ['annotation in, key absent', term(ANNOTATION, 'k', IN, '1'), {}, false],
    ['annotation not in, another value', term(ANNOTATION, 'k', NOT_IN, '1'), { annotations: { k: '2' } }, true],
    ['annotation not in, key absent (as Kubernetes has it)', term(ANNOTATION, 'k', NOT_IN, '1'), {}, true],
    ['annotation exists', term(ANNOTATION, 'k', EXISTS), { annotations: { k: '2' } }, true],
    ['annotation exists, a property of every object', term(ANNOTATION, 'constructor', EXISTS), {}, false],
    ['annotation does not exist', term(ANNOTATION, 'k', DOES_NOT_EXIST), { annotations: { k: '2' } }, false],
    ['a capability is no annotation', term(ANNOTATION, 'k', EXISTS), { capabilities: { k: '2' } }, false],
    [
      'capability exists',
      term(CAPABILITY, 'kind:apps/Deployment', EXISTS),
      { capabilities: { 'kind:apps/Deployment': 'v1' } },
      true,
    ],
    ['version, equal', term(CAPABILITY, 'v', GTE, '1.30'), { capabilities: { v: 'v1.30.0' } }, true],
    [
      'version, later by number and not by letter',
      term(CAPABILITY, 'v', GTE, '1.9'),
      { capabilities: { v: 'v1.30.2-eks-1' } },
      true,
    ],
    ['version, earlier', term(CAPABILITY, 'v', GTE, '1.30.1'), { capabilities: { v: '1.30' } }, false],
    ['version lt', term(CAPABILITY, 'v', LT, 'v1.31'), { capabilities: { v: 'v1.30.9' } }, true],
    ['version lt, equal', term(CAPABILITY, 'v', LT, '1.30'), { capabilities: { v: 'v1.30' } }, false],
    ['version, key absent', term(CAPABILITY, 'v', LT, '1.30'), {}, false],
    ['version, no version', term(CAPABILITY, 'v', GTE, '1'), { capabilities: { v: 'latest' } }, false],
  ])('%s', (_name, shape, given: Partial<AgentTraits>, expected) => {
    expect(holds(shape, given)).toBe(expected);
  });

  it('holds for every agent only when that is said', () => {
    expect(holds({ everyAgent: true }, {})).toBe(true);
    expect(clausesOf(selector({ noAgent: true }))).toEqual([]);
    expect(versionNumbers('v1.36.3-rc.1+build')).toEqual([1, 36, 3]);
    expect(versionNumbers('1.2.3.4')).toBeUndefined();
  });
});

describe('a selector that cannot be used', () => {
  const deep = (levels: number): Shape => (levels === 1 ? term(LABEL, 'a', EXISTS) : { all: [deep(levels - 1)] });
  const wide = (count: number): Shape => ({ any: Array.from({ length: count }, (_, at) => term(LABEL, `l${at}`, EXISTS)) });
  it.each<[string, Shape, string]>([
    ['nothing', {}, 'selector: set one of all, any, term and every_agent; an empty selector selects nothing'],
    ['nothing, inside', { all: [term(LABEL, 'a', EXISTS), {}] }, 'selector.all[1]: set one of'],
    [
      'two forms',
      { everyAgent: true, all: [term(LABEL, 'a', EXISTS)] },
      'selector: set one of all, any, term and every_agent, not all and every_agent',
    ],
    ['no_agent in a group', { any: [{ noAgent: true }] }, 'selector.any[0]: no_agent stands alone'],
    ['no source', { term: { key: 'a', operator: EXISTS } }, 'selector.term.source: it is label, annotation or capability'],
    ['no operator', { term: { source: LABEL, key: 'a' } }, 'selector.term.operator: it is in, not_in'],
    ['a label in with a key', term(LABEL, 'a', IN, 'b'), 'selector.term.key: labels are words'],
    ['a label exists with a value', term(LABEL, 'a', EXISTS, 'b'), 'selector.term.values: exists takes no values'],
    ['in without values', term(ANNOTATION, 'k', IN), 'selector.term.values: in takes 1 to 64 values'],
    [
      'white space in a value',
      term(ANNOTATION, 'k', IN, 'a', 'b c'),
      'selector.term.values[1]: it has 1 to 64 characters and no white space',
    ],
    ['a long key', term(ANNOTATION, 'k'.repeat(65), EXISTS), 'selector.term.key: it has 1 to 64 characters'],
    [
      'a version of a label',
      term(LABEL, '', GTE, '1.2'),
      'selector.term.values: gte compares versions, which only capabilities are',
    ],
    ['no version', term(CAPABILITY, 'v', LT, 'new'), 'selector.term.values: lt takes one version, for example 1.30'],
    ['six levels', deep(6), `selector${'.all[0]'.repeat(5)}: it is nested deeper than 5 levels`],
    ['63 terms', wide(63), 'selector.any[62]: the selector has more than 62 terms'],
    [
      'too many alternatives',
      { all: [wide(9), wide(9)] },
      'selector: its groups multiply out to more than 64 alternatives or 256 terms',
    ],
  ])('%s', (_name, shape, message) => {
    try {
      clausesOf(selector(shape));
    } catch (error) {
      expect(error).toBeInstanceOf(BrokkrError);
      expect((error as BrokkrError).code).toBe('invalid_stack');
      expect((error as BrokkrError).message).toContain(message);
      return;
    }
    throw new Error('it was accepted');
  });

  it('is not one at the limits', () => {
    expect(clausesOf(selector(deep(5)))).toHaveLength(1);
    expect(clausesOf(selector(wide(62)))).toHaveLength(62);
    expect(clausesOf(selector({ all: [wide(8), wide(8)] }))).toHaveLength(64);
  });
});

it('names of several alternatives the one that is nearest', () => {
  const clauses = clausesOf(
    selector({
      any: [
        { all: [term(LABEL, 'x', EXISTS), term(LABEL, 'y', EXISTS)] },
        { all: [term(LABEL, 'a', EXISTS), term(CAPABILITY, 'v', GTE, '1.30'), term(ANNOTATION, 'k', NOT_IN, 'b')] },
      ],
    }),
  );
  const given = traits({ labels: ['a'], capabilities: { v: '1.29' } });
  const found = nearestClause(clauses, given);
  expect(found?.clause.map(termText)).toEqual(['label a', 'v >= 1.30', 'annotation k not in (b)']);
  expect(found?.failing.map((each) => `${termText(each)}: ${foundText(each, given)}`)).toEqual(['v >= 1.30: v=1.29']);
});

describe('the database', () => {
  let db: Database;
  beforeAll(async () => {
    db = await (await testDatabase()).open();
  });

  it('selects the agents that the rules select, whatever the selectors and the agents', async () => {
    const seed = randomInt(2 ** 31);
    const pick = randomOf(seed);
    const words = ['a', 'b', 'c'] as const;
    const versions = ['v1.29.4', 'v1.30.0', '1.30', 'v1.31.2-gke.7', 'none', '10.0'] as const;
    const randomTerm = (): Shape => {
      const source = pick([LABEL, ANNOTATION, CAPABILITY]);
      const operator = pick(
        source === CAPABILITY ? [IN, NOT_IN, EXISTS, DOES_NOT_EXIST, GTE, LT] : [IN, NOT_IN, EXISTS, DOES_NOT_EXIST],
      );
      const version = operator === GTE || operator === LT;
      const keyed = source !== LABEL || operator === EXISTS || operator === DOES_NOT_EXIST;
      const key = !keyed ? '' : version ? pick(['kubernetes_version', 'a']) : pick(words);
      const listed = operator === IN || operator === NOT_IN;
      const values = version ? [pick(['1.30', 'v1.31.2', '2'])] : listed ? [pick(words), pick(words)] : [];
      return term(source, key, operator, ...values);
    };
    const randomSelector = (depth: number): Shape => {
      const form = depth === 1 ? 'term' : pick(['all', 'any', 'term', 'every'] as const);
      if (form === 'term') return randomTerm();
      if (form === 'every') return { everyAgent: true };
      const parts = Array.from({ length: pick([1, 2, 3]) }, () => randomSelector(depth - 1));
      return form === 'all' ? { all: parts } : { any: parts };
    };
    const agents = new Map<string, AgentTraits>();
    for (let at = 0; at < 40; at++) {
      const labels = words.filter(() => pick([true, false]));
      const annotations = Object.fromEntries(words.filter(() => pick([true, false])).map((key) => [key, pick(words)]));
      const reported = Object.fromEntries(
        words.filter(() => pick([true, false])).map((key) => [key, pick([...words, ...versions])]),
      );
      const version = pick([...versions, undefined]);
      const id = await plantAgent(db, `a${at}`, { labels, annotations, capabilities: reported }, version);
      agents.set(id, { labels, annotations, capabilities: { ...reported, ...(version && { kubernetes_version: version }) } });
    }
    let matches = 0;
    for (let at = 0; at < 120; at++) {
      const wanted = selector(randomSelector(3));
      const stackId = await plantStack(db, `s${at}`);
      const bytes = toBinary(SelectorSchema, wanted);
      await db.transaction((tx) => replaceSelector(tx, stackId, bytes, clausesOf(wanted)));
      const rows = await db.query<{ agent_id: string }>(
        `select agent_id from targeting where stack_id = $1 and method = 'selector' group by agent_id`,
        [stackId],
      );
      const expected = [...agents].filter(([, given]) => selects(fromBinary(SelectorSchema, bytes), given)).map(([id]) => id);
      expect(rows.map((row) => row.agent_id).sort(), `seed ${seed}, selector ${at} ${JSON.stringify(wanted)}`).toEqual(
        expected.sort(),
      );
      matches += expected.length;
    }
    expect(matches).toBeGreaterThan(500);
    expect(matches).toBeLessThan(40 * 120 - 500);
  });

  it('selects nobody any more when the selector is taken away', async () => {
    const stackId = await plantStack(db, 'gone');
    const everyone = clausesOf(selector({ everyAgent: true }));
    const reached = async () => (await db.query('select from targeting where stack_id = $1', [stackId])).length;
    await db.transaction((tx) => replaceSelector(tx, stackId, new Uint8Array([1]), everyone));
    expect(await reached()).toBeGreaterThan(0);
    await db.transaction((tx) => replaceSelector(tx, stackId, null, []));
    expect(await reached()).toBe(0);
  });
});

/** By the tree, without the clauses. */
function selects(part: Selector, given: AgentTraits): boolean {
  if (part.everyAgent) return true;
  if (part.term) return termSelects(part.term, given);
  return part.all.length > 0 ? part.all.every((each) => selects(each, given)) : part.any.some((each) => selects(each, given));
}

function termSelects(
  { source, key, operator, values }: SelectorTerm,
  { labels, annotations, capabilities }: AgentTraits,
): boolean {
  if (source === LABEL && operator === IN) return labels.some((label) => values.includes(label));
  if (source === LABEL && operator === NOT_IN) return !labels.some((label) => values.includes(label));
  const pairs: Readonly<Record<string, string>> =
    source === LABEL
      ? Object.fromEntries(labels.map((label) => [label, '']))
      : source === ANNOTATION
        ? annotations
        : capabilities;
  const value = pairs[key];
  switch (operator) {
    case IN:
      return value !== undefined && values.includes(value);
    case NOT_IN:
      return value === undefined || !values.includes(value);
    case EXISTS:
      return value !== undefined;
    case DOES_NOT_EXIST:
      return value === undefined;
    default: {
      const number = (text: string) => {
        const [major = Number.NaN, minor = 0, patch = 0] = text
          .replace(/^v/, '')
          .replace(/[-+].*/, '')
          .split('.')
          .map(Number);
        return major * 1e6 + minor * 1e3 + patch;
      };
      if (value === undefined) return false;
      return operator === GTE ? number(value) >= number(values[0] ?? '') : number(value) < number(values[0] ?? '');
    }
  }
}

/** Picks from lists, the same for the same seed (xorshift32, Marsaglia 2003). */
function randomOf(seed: number): <T>(list: readonly T[]) => T {
  let state = seed || 1;
  return <T>(list: readonly T[]) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return list[(state >>> 0) % list.length] as T;
  };
}

async function plantAgent(db: Database, name: string, given: AgentTraits, version: string | undefined): Promise<string> {
  const [row] = await db.query<{ id: string }>(
    `insert into agent (name, cluster_name, kubernetes_version, capabilities) values ($1, 'c', $2, $3) returning id`,
    [name, version ?? null, JSON.stringify(given.capabilities)],
  );
  const id = row?.id ?? '';
  await db.query('insert into agent_label (agent_id, label) select $1, unnest($2::text[])', [id, given.labels]);
  await db.query('insert into agent_annotation (agent_id, key, value) select $1, * from unnest($2::text[], $3::text[])', [
    id,
    Object.keys(given.annotations),
    Object.values(given.annotations),
  ]);
  return id;
}

async function plantStack(db: Database, name: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(
    `insert into stack (name, generator_id, salt, options_digest)
     select $1, id, '\\x00', '\\x00' from generator where name = 'admin-generator' returning id`,
    [name],
  );
  return row?.id ?? '';
}
