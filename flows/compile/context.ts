import type { FlowProblem } from '#flows/model/document.ts';
import type { Hop } from '#flows/model/hops.ts';
import type { Direction, Endpoint, Model } from '#flows/model/model.ts';
import type { createNotes } from './notes.ts';

/** What the parts of a compile share. */
export interface CompileContext {
  readonly model: Model;
  readonly cluster: string;
  readonly allowBroad: boolean;
  readonly notes: ReturnType<typeof createNotes>;
  readonly problems: FlowProblem[];
}

/** A connection seen from one end of it. */
export interface Side {
  readonly hop: Hop;
  readonly direction: Direction;
  readonly peer: Endpoint;
}
