import { BrokkrError } from '#lib/errors.ts';
import { type Selector, SelectorOperator, SelectorSource, type SelectorTerm } from '#proto/brokkr/v1/targeting_pb.js';
import { versionNumbers } from './terms.ts';

/**
 * A condition as it is stored: labels have the empty key and only in and not_in; every holds for every agent; gte and lt
 * have one version.
 */
export interface Term {
  readonly source: 'agent' | 'label' | 'annotation' | 'capability';
  readonly key: string;
  readonly operator: 'every' | 'in' | 'not_in' | 'exists' | 'does_not_exist' | 'gte' | 'lt';
  readonly operands: readonly string[];
}

/** Conditions that have to hold together. */
export type Clause = readonly Term[];

/** Levels of a selector, the single term included. */
const MAX_DEPTH = 5;
/** Terms of a selector as written: each has a bit of 63 in the database, and one is kept for `EVERY`. */
const MAX_TERMS = 62;
/** Alternatives and their terms together, once the groups are multiplied out: what is stored and matched. */
const MAX_CLAUSES = 64;
const MAX_CLAUSE_TERMS = 256;
const MAX_VALUES = 64;
/** Labels, annotation keys and values. */
const WORD = /^\S{1,64}$/u;
/** Capabilities name kinds: a group of 253 characters and a kind of 63, with a prefix. */
const CAPABILITY = /^\S{1,320}$/u;
/** Holds for every agent. */
export const EVERY: Term = { source: 'agent', key: '', operator: 'every', operands: [] };

/**
 * A selector as alternatives: it holds for an agent when all terms of one clause do. Empty for `no_agent`. Throws
 * `invalid_stack` whose message begins with the place (`selector.all[1].term.key`), for a selector that does not say
 * exactly one thing at each place or goes past a limit.
 */
export function clausesOf(selector: Selector): readonly Clause[] {
  if (selector.noAgent && formsOf(selector).length === 1) return [];
  let terms = 0;
  const expand = (part: Selector, place: string, depth: number): readonly Clause[] => {
    if (depth > MAX_DEPTH) throw refused(place, `it is nested deeper than ${MAX_DEPTH} levels`);
    const form = formOf(part, place);
    switch (form) {
      case 'term':
        if (++terms > MAX_TERMS) throw refused(place, `the selector has more than ${MAX_TERMS} terms`);
        return [[termOf(part.term as SelectorTerm, `${place}.term`)]];
      case 'every_agent':
        return [[EVERY]];
      case 'no_agent':
        throw refused(place, 'no_agent stands alone, not inside a group');
      case 'all':
        return conjunction(part.all.map((each, at) => expand(each, `${place}.all[${at}]`, depth + 1)));
      case 'any':
        return bounded(part.any.flatMap((each, at) => expand(each, `${place}.any[${at}]`, depth + 1)));
    }
  };
  return expand(selector, 'selector', 1);
}

type Form = 'all' | 'any' | 'term' | 'every_agent' | 'no_agent';

function formsOf({ all, any, term, everyAgent, noAgent }: Selector): Form[] {
  const set: readonly (readonly [Form, boolean])[] = [
    ['all', all.length > 0],
    ['any', any.length > 0],
    ['term', term !== undefined],
    ['every_agent', everyAgent],
    ['no_agent', noAgent],
  ];
  return set.flatMap(([form, present]) => (present ? [form] : []));
}

function formOf(selector: Selector, place: string): Form {
  const [form, second] = formsOf(selector);
  if (form === undefined) throw refused(place, 'set one of all, any, term and every_agent; an empty selector selects nothing');
  if (second !== undefined) throw refused(place, `set one of all, any, term and every_agent, not ${form} and ${second}`);
  return form;
}

/** Multiplies out: one clause of each part, in every combination. */
function conjunction(parts: readonly (readonly Clause[])[]): readonly Clause[] {
  return parts.reduce<readonly Clause[]>(
    (product, part) => bounded(product.flatMap((left) => part.map((right) => [...left, ...right]))),
    [[]],
  );
}

function bounded(clauses: readonly Clause[]): readonly Clause[] {
  const terms = clauses.reduce((sum, clause) => sum + clause.length, 0);
  if (clauses.length <= MAX_CLAUSES && terms <= MAX_CLAUSE_TERMS) return clauses;
  throw refused(
    'selector',
    `its groups multiply out to more than ${MAX_CLAUSES} alternatives or ${MAX_CLAUSE_TERMS} terms; use in with several values instead of any`,
  );
}

const SOURCES = {
  [SelectorSource.LABEL]: 'label',
  [SelectorSource.ANNOTATION]: 'annotation',
  [SelectorSource.CAPABILITY]: 'capability',
} as const;

const OPERATORS = {
  [SelectorOperator.IN]: 'in',
  [SelectorOperator.NOT_IN]: 'not_in',
  [SelectorOperator.EXISTS]: 'exists',
  [SelectorOperator.DOES_NOT_EXIST]: 'does_not_exist',
  [SelectorOperator.GTE]: 'gte',
  [SelectorOperator.LT]: 'lt',
} as const;

function termOf({ source, key, operator, values }: SelectorTerm, place: string): Term {
  const from = (SOURCES as Partial<Record<SelectorSource, Term['source']>>)[source];
  if (from === undefined) throw refused(`${place}.source`, 'it is label, annotation or capability');
  const how = (OPERATORS as Partial<Record<SelectorOperator, Exclude<Term['operator'], 'every'>>>)[operator];
  if (how === undefined) throw refused(`${place}.operator`, 'it is in, not_in, exists, does_not_exist, gte or lt');
  const word = from === 'capability' ? CAPABILITY : WORD;
  const takesKey = from !== 'label' || how === 'exists' || how === 'does_not_exist';
  if (!takesKey && key !== '')
    throw refused(`${place}.key`, `labels are words: ${how} compares them with values and takes no key`);
  if (takesKey && !word.test(key)) throw refused(`${place}.key`, `it has 1 to ${longest(word)} characters and no white space`);
  assertValues({ from, how, values, word }, `${place}.values`);
  if (from === 'label' && takesKey)
    return { source: from, key: '', operator: how === 'exists' ? 'in' : 'not_in', operands: [key] };
  return { source: from, key, operator: how, operands: values };
}

function assertValues(
  {
    from,
    how,
    values,
    word,
  }: {
    readonly from: Term['source'];
    readonly how: Term['operator'];
    readonly values: readonly string[];
    readonly word: RegExp;
  },
  place: string,
): void {
  switch (how) {
    case 'in':
    case 'not_in': {
      if (values.length < 1 || values.length > MAX_VALUES) throw refused(place, `${how} takes 1 to ${MAX_VALUES} values`);
      const bad = values.findIndex((value) => !word.test(value));
      if (bad >= 0) throw refused(`${place}[${bad}]`, `it has 1 to ${longest(word)} characters and no white space`);
      return;
    }
    case 'gte':
    case 'lt':
      if (from !== 'capability') throw refused(place, `${how} compares versions, which only capabilities are`);
      if (values.length !== 1 || versionNumbers(values[0] ?? '') === undefined)
        throw refused(place, `${how} takes one version, for example 1.30 or v1.30.2`);
      return;
    case 'exists':
    case 'does_not_exist':
    case 'every':
      if (values.length > 0) throw refused(place, `${how} takes no values`);
  }
}

function longest(word: RegExp): number {
  return word === WORD ? 64 : 320;
}

function refused(place: string, reason: string): BrokkrError {
  return new BrokkrError('invalid_stack', `${place}: ${reason}`, { details: { field: place } });
}
