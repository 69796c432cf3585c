import type { DescEnum } from '@bufbuild/protobuf';

/** Enums whose values are spelled in upper case in REST; all others are in lower case (contract of existing clients). */
const UPPER_CASE: ReadonlySet<string> = new Set(['brokkr.v1.AgentStatus', 'brokkr.v1.EventStatus']);

/** The spellings of one enum in REST. */
export interface WireNames {
  /** By number; undefined for the unspecified value, which is printed as null. */
  readonly byNumber: ReadonlyMap<number, string>;
  /** By spelling; the full names of the proto are understood too. */
  readonly byName: ReadonlyMap<string, number>;
  /** For error messages. */
  readonly allowed: string;
}

/** Works out how REST spells the values of an enum: prefix stripped, and the case of the one table above. */
export function wireNamesOf(desc: DescEnum): WireNames {
  const byNumber = new Map<number, string>();
  const byName = new Map<string, number>();
  const prefix = (desc.sharedPrefix ?? '').toUpperCase();
  for (const value of desc.values) {
    byName.set(value.name, value.number);
    if (value.number === 0 && value.name.endsWith('_UNSPECIFIED')) continue;
    const short = value.name.startsWith(prefix) ? value.name.slice(prefix.length) : value.name;
    const spelling = UPPER_CASE.has(desc.typeName) ? short : short.toLowerCase();
    byNumber.set(value.number, spelling);
    byName.set(spelling, value.number);
  }
  return { byNumber, byName, allowed: [...byNumber.values()].join(', ') };
}
