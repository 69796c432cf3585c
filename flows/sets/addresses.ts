import { contains, type Intervals, intersect, pairs } from './intervals.ts';

/**
 * A set of IP addresses of both families: an IPv4 address is its number, an IPv6 address its number plus `IPV6_BASE`. One line of
 * numbers for both keeps every operation on sets the same.
 */
export type AddressSet = Intervals<bigint>;

const IPV6_BASE = 1n << 128n;

/** All IPv4 addresses. */
export const ALL_IPV4: AddressSet = [0n, 1n << 32n];

/** All IPv6 addresses. */
export const ALL_IPV6: AddressSet = [IPV6_BASE, IPV6_BASE << 1n];

/** All addresses. */
export const ALL_ADDRESSES: AddressSet = [...ALL_IPV4, ...ALL_IPV6];

/**
 * The number of an address in an `AddressSet`; undefined when the text is none. What the API server refuses is none: leading zeros,
 * IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2) and zones (kubernetes `validation.IsValidIP`).
 */
export function parseAddress(text: string): bigint | undefined {
  if (!text.includes(':')) return parseIpv4(text);
  const number = parseIpv6(text);
  return number === undefined || number >> 32n === 0xffffn ? undefined : IPV6_BASE + number;
}

/** A CIDR: its first address as a number of an `AddressSet`, the length of its prefix, and all its addresses. */
export interface Cidr {
  readonly first: bigint;
  readonly size: number;
  readonly addresses: AddressSet;
}

/** Reads `address/size`. Undefined when it is no CIDR; one with bits set behind the prefix is none (kubernetes `validation.IsValidCIDR`). */
export function parseCidr(text: string): Cidr | undefined {
  const [, address = '', length = ''] = /^([^/]+)\/(0|[1-9][0-9]{0,2})$/.exec(text) ?? [];
  const first = parseAddress(address);
  const bits = address.includes(':') ? 128 : 32;
  const size = Number(length);
  if (first === undefined || size > bits) return undefined;
  const count = 1n << BigInt(bits - size);
  return first % count === 0n ? { first, size, addresses: [first, first + count] } : undefined;
}

/** The addresses of a CIDR or of a single address. Throws when the text is neither. */
export function addressesOf(text: string): AddressSet {
  const cidr = parseCidr(text);
  if (cidr) return cidr.addresses;
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`${JSON.stringify(text)} is neither an IP address nor a CIDR`);
  return [address, address + 1n];
}

/** Whether the address is in the set. */
export function hasAddress(set: AddressSet, address: bigint): boolean {
  return contains(set, address);
}

/**
 * The set as text, one entry an interval: an address, a CIDR where the interval is one, else `first-last`. An interval never spans the
 * families.
 */
export function addressTexts(set: AddressSet): string[] {
  const texts: string[] = [];
  for (const family of [ALL_IPV4, ALL_IPV6]) {
    for (const [from, to] of pairs(intersect(set, family))) texts.push(rangeText(from, to));
  }
  return texts;
}

/** An address as text; IPv6 as RFC 5952 asks. */
export function addressText(address: bigint): string {
  if (address >= IPV6_BASE) return ipv6Text(address - IPV6_BASE);
  return [24n, 16n, 8n, 0n].map((shift) => (address >> shift) & 0xffn).join('.');
}

function rangeText(from: bigint, to: bigint): string {
  const count = to - from;
  if (count === 1n) return addressText(from);
  const hostBits = count.toString(2).length - 1;
  const isCidr = count === 1n << BigInt(hostBits) && from % count === 0n;
  if (isCidr) return `${addressText(from)}/${(from >= IPV6_BASE ? 128 : 32) - hostBits}`;
  return `${addressText(from)}-${addressText(to - 1n)}`;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
  return parts.reduce((number, part) => (number << 8n) | BigInt(Number(part)), 0n);
}

function parseIpv6(text: string): bigint | undefined {
  const dotted = /^(.*:)([^:]*\..*)$/.exec(text);
  const ipv4 = dotted?.[2] === undefined ? undefined : parseIpv4(dotted[2]);
  if (dotted && ipv4 === undefined) return undefined;
  const hex = dotted && ipv4 !== undefined ? `${dotted[1]}${(ipv4 >> 16n).toString(16)}:${(ipv4 & 0xffffn).toString(16)}` : text;
  const halves = hex.split('::');
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...Array<string>(missing).fill('0'), ...tail];
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  return groups.reduce((number, group) => (number << 16n) | BigInt(`0x${group}`), 0n);
}

function ipv6Text(number: bigint): string {
  const groups = Array.from({ length: 8 }, (_, index) => ((number >> BigInt(112 - 16 * index)) & 0xffffn).toString(16));
  const plain = groups.join(':');
  const zeros = [...plain.matchAll(/(?<![0-9a-f])0(?::0)+(?![0-9a-f])/g)];
  const longest = zeros.reduce<RegExpExecArray | undefined>(
    (best, run) => (run[0].length > (best?.[0].length ?? 0) ? run : best),
    undefined,
  );
  if (!longest) return plain;
  const before = plain.slice(0, longest.index).replace(/:$/, '');
  const after = plain.slice(longest.index + longest[0].length).replace(/^:/, '');
  return `${before}::${after}`;
}
