import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { type AddressSet, addressTexts } from '#flows/sets/addresses.ts';
import { type ConnectionId, NONE } from '#flows/sets/connection-table.ts';
import { portsText } from '#flows/sets/connections.ts';
import { union } from '#flows/sets/intervals.ts';
import { podLabel } from './cluster.ts';
import type { Connections } from './connections-between.ts';
import type { Endpoint } from './endpoint.ts';
import type { Evaluator } from './evaluator.ts';
import { type ReachClasses, reachClasses } from './reach-classes.ts';
import { isSamePod } from './verdict.ts';

/** What may be opened from one end to another, for one protocol. */
export interface Connection {
  /** `namespace/name` of a pod or workload, or a range of addresses: an address, a CIDR or `first-last`. */
  readonly src: string;
  readonly dst: string;
  readonly protocol: Protocol;
  /** `80,443,8000-8080`; all ports are `1-65535`. */
  readonly ports: string;
  /** A fact is missing to say whether these ports are open. */
  readonly undecidable?: true;
  /** These ports are open with the way in which `ipBlock` is read here, and closed with the other. */
  readonly cniDependent?: true;
}

/** What is open from one class to another; one object for equal contents. */
interface Reach {
  readonly sure: ConnectionId;
  readonly undecidable: ConnectionId;
  readonly cniDependent: ConnectionId;
}

/**
 * All connections between pods, workloads and ranges of addresses, in the order of the documents. Between addresses nothing is listed: no
 * policy acts there. A pod to itself is left out; a workload to itself is one replica to another.
 */
export function* connections(evaluator: Evaluator): Generator<Connection> {
  const { cluster } = evaluator;
  const classes = reachClasses(cluster);
  const reach = createReach(evaluator, classes);
  const labels = cluster.pods.map(podLabel);
  const describe = createDescriptions(evaluator);
  const toAddresses = classes.pods.map((_, own) => byAddress(classes, (other) => reach(own, classes.pods.length + other)));
  const fromAddresses = classes.pods.map((_, own) => byAddress(classes, (other) => reach(classes.pods.length + other, own)));
  for (const [from, src] of labels.entries()) {
    const own = classes.classOf[from] ?? 0;
    for (const [to, dst] of labels.entries()) {
      if (from === to && cluster.pods[from]?.kind === 'Pod') continue;
      for (const part of describe(reach(own, classes.classOf[to] ?? 0))) yield { src, dst, ...part };
    }
    for (const { texts, open } of toAddresses[own] ?? []) {
      for (const dst of texts) for (const part of describe(open)) yield { src, dst, ...part };
    }
  }
  for (const [to, dst] of labels.entries()) {
    for (const { texts, open } of fromAddresses[classes.classOf[to] ?? 0] ?? []) {
      for (const src of texts) for (const part of describe(open)) yield { src, dst, ...part };
    }
  }
}

/** Classes are numbered pods first, then addresses. Each pair is worked out when it is first asked for. */
function createReach(evaluator: Evaluator, classes: ReachClasses): (from: number, to: number) => Reach {
  const { ipBlockMode, table } = evaluator;
  const ends: readonly (readonly Endpoint[])[] = [...classes.pods, ...classes.addresses.map((each) => [each])];
  const own = evaluator.between(ipBlockMode);
  // without a block of addresses the ways to read one cannot differ
  const hasBlocks = classes.addresses.length > 1;
  const other = evaluator.between(!hasBlocks ? ipBlockMode : ipBlockMode === 'any-ip' ? 'external-only' : 'any-ip');
  const rows: (Reach | undefined)[][] = ends.map(() => []);
  const distinct = new Map<string, Reach>();
  return (from, to) => {
    const row = rows[from] ?? [];
    const known = row[to];
    if (known) return known;
    const [source, destination] = [ends[from]?.[0], pairedEnd(ends, from, to)];
    const found =
      source && destination && !isSamePod(source, destination)
        ? join(own(source, destination), other(source, destination))
        : NOTHING;
    row[to] = found;
    return found;
  };

  function join({ allowed, undecidable }: Connections, otherwise: Connections): Reach {
    const sure = table.intersect(allowed, otherwise.allowed);
    const cniDependent = table.subtract(allowed, sure);
    const key = `${sure} ${undecidable} ${cniDependent}`;
    const reach = distinct.get(key) ?? { sure, undecidable, cniDependent };
    distinct.set(key, reach);
    return reach;
  }
}

const NOTHING: Reach = { sure: NONE, undecidable: NONE, cniDependent: NONE };

/** The second end of a pair of classes: within one class another member than the first end, where there is one. */
function pairedEnd(ends: readonly (readonly Endpoint[])[], from: number, to: number): Endpoint | undefined {
  const members = ends[to] ?? [];
  return from === to ? (members[1] ?? members[0]) : members[0];
}

interface AddressReach {
  readonly texts: readonly string[];
  readonly open: Reach;
}

/** Address classes that are reached alike, joined, so that ranges are as few and as large as they can be. */
function byAddress({ addresses }: ReachClasses, reach: (index: number) => Reach): AddressReach[] {
  const found = new Map<Reach, AddressSet>();
  for (const [index, { addresses: set }] of addresses.entries()) {
    const open = reach(index);
    found.set(open, union(found.get(open) ?? [], set));
  }
  return [...found].map(([open, set]) => ({ texts: addressTexts(set), open }));
}

type Description = Omit<Connection, 'src' | 'dst'>;

/** Writes what is open; the same sets are written once. */
function createDescriptions({ table }: Evaluator): (reach: Reach) => readonly Description[] {
  const known = new Map<Reach, readonly Description[]>();
  const parts = (id: ConnectionId, marks: Partial<Description>) =>
    PROTOCOLS.filter((protocol) => table.get(id)[protocol].length > 0).map((protocol) => ({
      protocol,
      ports: portsText(table.get(id)[protocol]),
      ...marks,
    }));
  return (reach) => {
    const found = known.get(reach);
    if (found) return found;
    const described = [
      ...parts(reach.sure, {}),
      ...parts(reach.cniDependent, { cniDependent: true }),
      ...parts(reach.undecidable, { undecidable: true }),
    ];
    known.set(reach, described);
    return described;
  };
}
