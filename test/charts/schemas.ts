import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { load } from 'js-yaml';

/** Where kubeconform looks for the schema of an object, below a folder of `writeSchemas`. The group of `v1` is `v1`. */
export const SCHEMA_LOCATION = '{{.Group}}_{{.ResourceKind}}_{{.ResourceAPIVersion}}.json';

// biome-ignore lint/suspicious/noExplicitAny: JSON Schema is read as it comes
type Schema = any;

interface KindName {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

/**
 * Writes JSON Schemas that kubeconform finds: of the kinds of an API server, from its document `/openapi/v2`, and of the
 * definitions in files. They are closed: fields that nobody declared are mistakes.
 */
export async function writeSchemas(folder: string, openapi: Schema, definitionFiles: readonly string[]): Promise<void> {
  const definitions = Object.entries<Schema>(openapi.definitions);
  const quantity = 'io.k8s.apimachinery.pkg.api.resource.Quantity';
  const closed = Object.fromEntries(definitions.map(([name, schema]) => [name, close(schema)]));
  closed[quantity] = { type: ['string', 'number'] };
  await writeFile(join(folder, 'definitions.json'), JSON.stringify({ definitions: closed }));
  for (const [name, schema] of definitions) {
    for (const kind of (schema['x-kubernetes-group-version-kind'] ?? []) as readonly KindName[])
      await write(folder, kind, { $ref: `definitions.json#/definitions/${name}` });
  }
  for (const file of definitionFiles) {
    const { spec } = load(await readFile(file, 'utf8')) as Schema;
    for (const { name: version, schema } of spec.versions)
      await write(folder, { group: spec.group, version, kind: spec.names.kind }, close(schema.openAPIV3Schema));
  }
}

async function write(folder: string, { group, version, kind }: KindName, schema: Schema): Promise<void> {
  await writeFile(
    join(folder, `${group === '' ? version : group}_${kind.toLowerCase()}_${version}.json`),
    JSON.stringify(schema),
  );
}

/** The schema without room for fields that it does not name, as JSON Schema understands it. */
function close(schema: Schema): Schema {
  if (Array.isArray(schema)) return schema.map(close);
  if (typeof schema !== 'object' || schema === null) return schema;
  if (schema['x-kubernetes-int-or-string'] || schema.format === 'int-or-string') return { type: ['string', 'integer'] };
  const inner = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      if (key === '$ref') return [key, String(value).replace('#/', 'definitions.json#/')];
      if (key === 'properties')
        return [key, Object.fromEntries(Object.entries(value as object).map(([name, each]) => [name, close(each)]))];
      return [key, close(value)];
    }),
  );
  const isOpen = 'additionalProperties' in inner || inner['x-kubernetes-preserve-unknown-fields'] === true;
  return 'properties' in inner && !isOpen ? { ...inner, additionalProperties: false } : inner;
}
