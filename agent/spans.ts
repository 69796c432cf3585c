import type { Attributes } from '@opentelemetry/api';
import type { ObjectKey } from '#lib/object.ts';
import type { SpanOptions } from '#lib/tracing.ts';

/** What spans say of a generation of a stack. */
export function stackAttributes(stack: {
  readonly stackId: string;
  readonly stackName: string;
  readonly generation: bigint;
}): Attributes {
  return {
    'brokkr.stack.id': stack.stackId,
    'brokkr.stack.name': stack.stackName,
    'brokkr.generation': Number(stack.generation),
  };
}

/** The span of what is done to an object: what it is, and nothing of what is in it. */
export function objectSpan(
  verb: 'apply' | 'prune',
  { group, version, kind, namespace, name }: ObjectKey & { readonly version: string },
): SpanOptions {
  return {
    name: `${verb} ${kind}`,
    attributes: {
      'brokkr.object.api_version': group === '' ? version : `${group}/${version}`,
      'brokkr.object.kind': kind,
      'brokkr.object.name': name,
      ...(namespace !== '' && { 'k8s.namespace.name': namespace }),
    },
  };
}
