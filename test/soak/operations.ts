import { FEW, type Item, itemText, STACKS, type StackItems } from './items.ts';
import type { Random } from './random.ts';

/** A stack as its publisher wants it. */
export interface StackState {
  readonly targeted: boolean;
  readonly paused: boolean;
  /** The version has an object that the API server refuses. */
  readonly broken: boolean;
  /** Wanted items with their revisions. */
  readonly wanted: ReadonlyMap<Item, number>;
}

/** What somebody other than the agent does to an object. */
export type Meddling =
  | 'tamper'
  | 'foreign apply'
  | 'delete'
  | 'replace by a stranger'
  | 'remove the label'
  | 'wipe the managers'
  | 'scale'
  /** A finalizer, then a deletion. */
  | 'hold';

/** The programs that are killed. */
export type Program = 'agent' | 'broker' | 'API server';

/** One step of the operator. It says all that is needed to carry it out. */
export type Operation =
  | { readonly kind: 'publish'; readonly stack: StackItems; readonly state: StackState }
  | { readonly kind: 'delete stack'; readonly stack: StackItems }
  | { readonly kind: 'meddle'; readonly item: Item; readonly how: Meddling }
  | { readonly kind: 'release holds' }
  | { readonly kind: 'kill' | 'start'; readonly program: Program };

/** An operation and how long to wait after it. */
export interface Step {
  readonly operation: Operation;
  readonly pauseMs: number;
}

/** What all the operations so far ask for; undefined for a stack that does not exist. */
export type Target = ReadonlyMap<StackItems, StackState | undefined>;

/** Corrections of one object that the agent makes before it takes them for a fight and waits (`agent/stack/schedule.ts`). */
const MEDDLINGS_AN_ITEM = 2;
/** Steps in which they count: more than the ten minutes of the agent. */
const MEDDLING_WINDOW = 900;
const MAX_PAUSE_MS = 1500;

/** The operator: an endless sequence of steps that depends on `random` alone, never on what the cluster does. */
export class Operator {
  readonly #random: Random;
  readonly #target = new Map<StackItems, StackState | undefined>(STACKS.map((stack) => [stack, undefined]));
  readonly #meddled = new Map<Item, number[]>();
  readonly #down = new Set<Program>();
  #steps = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** What the steps so far ask for. */
  get target(): Target {
    return this.#target;
  }

  next(): Step {
    this.#steps += 1;
    const operation = this.#choose();
    return { operation, pauseMs: this.#random.chance(0.3) ? 0 : this.#random.below(MAX_PAUSE_MS) };
  }

  /** The steps after which everything can come to rest: all programs run, nothing is held, paused or broken. */
  rest(): Step[] {
    const operations: Operation[] = [...this.#down].map((program) => ({ kind: 'start', program }));
    operations.push({ kind: 'release holds' });
    for (const [stack, state] of this.#target) {
      if (state) operations.push(this.#publish(stack, { ...state, paused: false, broken: false }));
    }
    this.#down.clear();
    return operations.map((operation) => ({ operation, pauseMs: 0 }));
  }

  #choose(): Operation {
    const random = this.#random;
    const [down] = this.#down;
    if (down !== undefined && random.chance(0.4)) {
      this.#down.delete(down);
      return { kind: 'start', program: down };
    }
    const stack = random.pick(STACKS);
    const state = this.#target.get(stack);
    if (this.#down.has('broker')) {
      if (state && this.#candidates(state).length > 0) return this.#meddle(state);
      this.#down.delete('broker');
      return { kind: 'start', program: 'broker' };
    }
    const dice = random.below(100);
    if (!state || dice < 35) return this.#publish(stack, this.#newVersion(stack, state));
    if (dice < 40) return this.#publish(stack, { ...state, targeted: !state.targeted });
    if (dice < 44) return this.#publish(stack, { ...state, paused: !state.paused });
    if (dice < 47 && stack.disposable) {
      this.#target.set(stack, undefined);
      return { kind: 'delete stack', stack };
    }
    if (dice < 53) {
      const program = random.pick(['agent', 'agent', 'agent', 'broker', 'API server'] as const);
      if (!this.#down.has(program)) {
        this.#down.add(program);
        return { kind: 'kill', program };
      }
    }
    if (dice < 56) return { kind: 'release holds' };
    if (this.#candidates(state).length === 0) return this.#publish(stack, this.#newVersion(stack, state));
    return this.#meddle(state);
  }

  #publish(stack: StackItems, state: StackState): Operation {
    this.#target.set(stack, state);
    return { kind: 'publish', stack, state };
  }

  #newVersion(stack: StackItems, before: StackState | undefined): StackState {
    const random = this.#random;
    const wanted = new Map<Item, number>();
    const few = stack.allOrFew && random.chance(0.5);
    const gone = random.pick([0, 0.1, 0.4]);
    for (const [index, item] of stack.items.entries()) {
      if (few ? index >= FEW : !stack.allOrFew && index > 0 && random.chance(gone)) continue;
      const old = before?.wanted.get(item);
      wanted.set(item, old === undefined || random.chance(0.3) ? this.#steps : old);
    }
    addOwners(stack, wanted, this.#steps);
    return {
      targeted: before?.targeted !== false || random.chance(0.5), // a stack that is away comes back soon
      paused: before?.paused ?? false,
      broken: random.chance(0.08),
      wanted,
    };
  }

  #candidates({ wanted }: StackState): Item[] {
    return [...wanted.keys()].filter((item) => this.#recent(item).length < MEDDLINGS_AN_ITEM);
  }

  #meddle(state: StackState): Operation {
    const item = this.#random.pick(this.#candidates(state));
    this.#meddled.set(item, [...this.#recent(item), this.#steps]);
    return { kind: 'meddle', item, how: this.#random.pick(meddlings(item)) };
  }

  /** Steps in which somebody meddled with an item, as far as they count. */
  #recent(item: Item): number[] {
    return (this.#meddled.get(item) ?? []).filter((step) => step > this.#steps - MEDDLING_WINDOW);
  }
}

/** For people. */
export function operationText(operation: Operation): string {
  switch (operation.kind) {
    case 'publish': {
      const { stack, state } = operation;
      const flags = [
        state.targeted ? '' : ', not targeted',
        state.paused ? ', paused' : '',
        state.broken ? ', with a broken object' : '',
      ].join('');
      const gone = stack.items.filter((item) => !state.wanted.has(item)).map(itemText);
      const without = gone.length === 0 ? '' : gone.length > 12 ? `, without ${gone.length}` : `, without ${gone.join(', ')}`;
      return `publish ${stack.name}${flags}${without}`;
    }
    case 'delete stack':
      return `delete stack ${operation.stack.name}`;
    case 'meddle':
      return `${operation.how}: ${itemText(operation.item)}`;
    case 'release holds':
      return operation.kind;
    case 'kill':
    case 'start':
      return `${operation.kind} ${operation.program}`;
  }
}

/** What an object needs to exist at all: its namespace, its definition. */
function addOwners(stack: StackItems, wanted: Map<Item, number>, revision: number): void {
  for (const item of [...wanted.keys()]) {
    const owner = stack.items.find(
      ({ kind, name }) =>
        (kind === 'Namespace' && name === item.namespace) || (kind === 'CustomResourceDefinition' && item.kind === 'Widget'),
    );
    if (owner && !wanted.has(owner)) wanted.set(owner, revision);
  }
}

function meddlings({ kind, namespace }: Item): readonly Meddling[] {
  if (kind === 'Namespace' || kind === 'CustomResourceDefinition') return ['delete', 'tamper'];
  const common = ['tamper', 'foreign apply', 'delete', 'replace by a stranger', 'remove the label', 'wipe the managers'] as const;
  if (kind === 'Deployment') return [...common, 'scale'];
  // only where no namespace is deleted: its end would wait for the hold
  return kind === 'ConfigMap' && namespace === 'soak-a' ? [...common, 'hold'] : common;
}
