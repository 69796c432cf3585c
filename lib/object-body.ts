import { canonicalJson, isMapping, type Value, type ValueObject } from './object.ts';

const HEAD = '{"metadata":{';

/** An object as the text that is sent: JSON, its (not empty) metadata first, so that `withUid` needs no parser. */
export function objectBody(object: ValueObject): string {
  const { metadata, ...rest } = object;
  return `{"metadata":${canonicalJson(isMapping(metadata) ? metadata : {})},${canonicalJson(rest).slice(1)}`;
}

/** The body, good only for the object with this UID: the server refuses it for any other, and for none. */
export function withUid(body: string, uid: string): string {
  return `${HEAD}"uid":${JSON.stringify(uid)},${body.slice(HEAD.length)}`;
}

/** The object of a body. Integers beyond 2^53 stay exact. */
export function parseBody(body: string): ValueObject {
  return parseExact(body) as ValueObject;
}

/** Parses JSON; integers beyond 2^53 become bigints instead of being rounded. */
export function parseExact(json: string): Value {
  const exact = (_key: string, value: unknown, context: { source?: string }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?[0-9]+$/.test(context.source ?? '')
      ? BigInt(context.source ?? 0)
      : value;
  return JSON.parse(json, /[0-9]{16}/.test(json) ? (exact as (key: string, value: unknown) => unknown) : undefined) as Value;
}
