import { fromBinary, toBinary, toJson } from '@bufbuild/protobuf';
import type { JsonValue } from '#lib/errors.ts';
import { type Selector, SelectorSchema } from '#proto/brokkr/v1/targeting_pb.js';
import type { Command } from '../api/command.ts';
import { type Clause, clausesOf } from '../targeting/selector.ts';
import { replaceSelector } from '../targeting/selector-store.ts';
import type { StackRow } from './store.ts';

/** A checked selector, ready to be written. */
export interface WantedSelector {
  /** Bytes of the message; null when the stack is to have none. */
  readonly bytes: Uint8Array | null;
  readonly clauses: readonly Clause[];
}

/** Checks a selector. Throws `invalid_stack` naming the place. */
export function readSelector(selector: Selector): WantedSelector {
  const clauses = clausesOf(selector);
  return { bytes: clauses.length === 0 ? null : toBinary(SelectorSchema, selector), clauses };
}

/** Gives a locked stack this selector; false when it has it already. Tells nobody: that is the caller's business. */
export async function changeSelector(
  { tx, audit }: Command,
  stack: Pick<StackRow, 'id' | 'selector'>,
  { bytes, clauses }: WantedSelector,
): Promise<boolean> {
  const same = bytes === null || stack.selector === null ? bytes === stack.selector : Buffer.from(bytes).equals(stack.selector);
  if (same) return false;
  await replaceSelector(tx, stack.id, bytes, clauses);
  const selector = bytes === null ? null : (toJson(SelectorSchema, fromBinary(SelectorSchema, bytes)) as JsonValue);
  audit('stack.selector_changed', 'stack', stack.id, { selector });
  return true;
}
