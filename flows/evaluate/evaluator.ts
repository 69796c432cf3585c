import { ASSUMED_POD_CIDRS } from '#flows/model/facts.ts';
import type { Facts } from '#flows/model/model.ts';
import { ConnectionTable } from '#flows/sets/connection-table.ts';
import type { Cluster } from './cluster.ts';
import { type ConnectionsBetween, createConnectionsBetween } from './connections-between.ts';
import { createEndpointFinder, type EndpointFinder } from './endpoint.ts';
import { createPolicyIndex, type PolicyIndex } from './policy-index.ts';
import type { IpBlockMode } from './rules.ts';
import { type Cell, type CellVerdict, judgeCell } from './verdict.ts';

/** Options of `createEvaluator`. */
export interface EvaluatorOptions {
  /** How the CNI reads `ipBlock`; see `ipBlockModeOf`. */
  readonly ipBlockMode: IpBlockMode;
  /** Where pods without a known address are; default: as facts assume. */
  readonly podCIDRs?: readonly string[];
}

/** A verdict, and whether CNIs disagree about it. */
export interface Verdict extends CellVerdict {
  /** Whether the other way to read `ipBlock` gives another verdict. */
  readonly cniDependent: boolean;
}

/** Answers who may connect to whom in one cluster view. */
export interface Evaluator {
  readonly cluster: Cluster;
  readonly ipBlockMode: IpBlockMode;
  readonly policies: PolicyIndex;
  /** Sets of `between` by number. */
  readonly table: ConnectionTable;
  /** Ends by name; throws when there is none. */
  readonly endpoint: EndpointFinder;
  /** The verdict about one connection, with what decided it. */
  verdict(cell: Cell): Verdict;
  /** All connections from one end to another in a mode. */
  between(mode: IpBlockMode): ConnectionsBetween;
}

/** How a CNI reads `ipBlock` (FLOWS 4.3.6): Cilium leaves addresses of the cluster out, the others compare every address. */
export function ipBlockModeOf(cni: Facts['cni']): IpBlockMode {
  return cni === 'cilium' ? 'external-only' : 'any-ip';
}

/** Makes an evaluator; work is done as it is asked, and remembered. */
export function createEvaluator(cluster: Cluster, { ipBlockMode, podCIDRs = ASSUMED_POD_CIDRS }: EvaluatorOptions): Evaluator {
  const policies = createPolicyIndex(cluster, podCIDRs);
  const table = new ConnectionTable();
  const otherMode = ipBlockMode === 'any-ip' ? 'external-only' : 'any-ip';
  const between = {
    'any-ip': createConnectionsBetween(policies, table, 'any-ip', cluster.pods.length),
    'external-only': createConnectionsBetween(policies, table, 'external-only', cluster.pods.length),
  };
  return {
    cluster,
    ipBlockMode,
    policies,
    table,
    endpoint: createEndpointFinder(cluster),
    verdict(cell) {
      const verdict = judgeCell(policies, cell, ipBlockMode);
      return { ...verdict, cniDependent: judgeCell(policies, cell, otherMode).verdict !== verdict.verdict };
    },
    between: (mode) => between[mode],
  };
}
