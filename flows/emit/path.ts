import { type Hop, hopsOf } from '#flows/model/hops.ts';
import type { Flow, Model } from '#flows/model/model.ts';

/** A flow with the connections it consists of, in order. */
export interface FlowPath {
  readonly flow: Flow;
  readonly hops: readonly Hop[];
}

/** The ways from an endpoint to another, or to wherever flows from it lead, in the order of the flows. */
export function pathsOf(model: Model, from: string, to?: string): readonly FlowPath[] {
  return model.flows
    .filter((flow) => flow.from === from && (to === undefined || flow.to === to))
    .map((flow) => ({ flow, hops: hopsOf(model, flow) }));
}
