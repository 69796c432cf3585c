import { isMapping, type ValueObject } from './object.ts';

/**
 * A Secret with its `stringData` as `data`, which is how it is stored (other objects come back as they are). A server-side apply with
 * `stringData` owns nothing of `data` (measured on 1.36.3): changes of others would go unseen, and keys that left would stay.
 */
export function withEncodedData(object: ValueObject): ValueObject {
  const { stringData, ...rest } = object;
  if (object.apiVersion !== 'v1' || object.kind !== 'Secret' || !isMapping(stringData)) return object;
  const entries = Object.entries(stringData);
  if (entries.some(([, value]) => typeof value !== 'string')) return object; // refused by the schema, or the server
  const encoded = entries.map(([key, value]) => [key, Buffer.from(String(value), 'utf8').toString('base64')]);
  return { ...rest, data: { ...(isMapping(rest.data) ? rest.data : {}), ...Object.fromEntries(encoded) } };
}
