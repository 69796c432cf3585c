import { type AddressSet, ALL_IPV4, ALL_IPV6, addressesOf, addressText } from './addresses.ts';
import { intersect, pairs, union } from './intervals.ts';

/** The union of addresses and CIDRs given as text. Throws when one is neither. */
export function addressSet(texts: readonly string[]): AddressSet {
  return texts.reduce<AddressSet>((set, text) => union(set, addressesOf(text)), []);
}

/** The set as the fewest CIDRs, IPv4 first; single addresses as `/32` and `/128`. */
export function cidrsOf(set: AddressSet): string[] {
  return [...familyCidrs(set, ALL_IPV4, 32), ...familyCidrs(set, ALL_IPV6, 128)];
}

/** The largest aligned block at each step; at most two blocks for every bit of an interval. */
function familyCidrs(set: AddressSet, family: AddressSet, bits: number): string[] {
  const texts: string[] = [];
  const [base = 0n] = family;
  for (const [first, end] of pairs(intersect(set, family))) {
    let at = first;
    while (at < end) {
      let size = bits;
      while (size > 0) {
        const block = 1n << BigInt(bits - size + 1);
        if ((at - base) % block !== 0n || at + block > end) break;
        size -= 1;
      }
      texts.push(`${addressText(at)}/${size}`);
      at += 1n << BigInt(bits - size);
    }
  }
  return texts;
}
