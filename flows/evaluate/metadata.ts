import { jsonPointer } from '#lib/yaml-problems.ts';
import { isLabelValue, isQualifiedName, type Labels } from './label-selector.ts';
import type { ReportField, Shape } from './shape.ts';

/** `metadata` of any object; what only a server writes is taken as it is. */
export const METADATA_SHAPE: Shape = {
  fields: {
    name: 'text',
    generateName: 'text',
    namespace: 'text',
    labels: { mapOf: 'text' },
    annotations: { mapOf: 'text' },
    finalizers: { listOf: 'text' },
    ownerReferences: 'anything',
    managedFields: 'anything',
    uid: 'text',
    resourceVersion: 'text',
    generation: 'anything',
    creationTimestamp: 'anything',
    deletionTimestamp: 'anything',
    deletionGracePeriodSeconds: 'anything',
    selfLink: 'text',
  },
};

interface Metadata {
  readonly name?: string;
  readonly namespace?: string;
  readonly labels?: Labels;
  readonly annotations?: Labels;
}

/** Reports what the API server refuses in the decoded metadata of a namespaced object whose name is a DNS subdomain. */
export function checkMetadata(metadata: Readonly<Record<string, unknown>> | undefined, report: ReportField): void {
  const { name = '', namespace, labels = {}, annotations = {} } = (metadata ?? {}) as Metadata;
  if (!isSubdomain(name))
    report('/metadata/name', 'a name is at most 253 of a-z 0-9 - . and begins and ends with a letter or digit');
  if (namespace !== undefined && namespace !== '' && !isLabel(namespace))
    report('/metadata/namespace', 'a namespace is at most 63 of a-z 0-9 - and begins and ends with a letter or digit');
  for (const [key, value] of Object.entries(labels)) {
    if (!isQualifiedName(key) || !isLabelValue(value)) report(jsonPointer('metadata', 'labels', key), 'is no valid label');
  }
  for (const key of Object.keys(annotations)) {
    if (!isQualifiedName(key.toLowerCase()))
      report(jsonPointer('metadata', 'annotations', key), 'is no valid key of an annotation');
  }
}

function isSubdomain(name: string): boolean {
  return name.length <= 253 && name.split('.').every((part) => /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(part));
}

function isLabel(name: string): boolean {
  return name.length <= 63 && !name.includes('.') && isSubdomain(name);
}
