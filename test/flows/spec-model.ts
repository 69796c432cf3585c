import { type PartialFacts, resolveFacts } from '#flows/model/facts.ts';
import { loadFlowSet } from '#flows/model/load.ts';
import type { Model } from '#flows/model/model.ts';
import { resolve, type Selection } from '#flows/model/resolve.ts';

/** The model of a `spec`, for tests of single rules; JSON is YAML. */
export function specModel(spec: object, facts: PartialFacts = {}, selection: Partial<Selection> = {}): Model {
  const text = JSON.stringify({ apiVersion: 'net.brokkr.dev/v1', kind: 'FlowSet', metadata: { name: 'shop' }, spec });
  return resolve(loadFlowSet(text, 'f.yaml'), {
    today: '2026-06-01',
    facts: resolveFacts({ facts, source: 'declared' }),
    ...selection,
  });
}
