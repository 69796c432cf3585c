import { describe, expect, it } from 'vitest';
import { createRandom, type Random } from '../../test/soak/random.ts';
import { addressesOf, addressText, addressTexts, hasAddress, parseAddress, parseCidr } from './addresses.ts';
import { hasPort, portRange, portsText, unionConnections } from './connections.ts';
import { contains, covers, type Intervals, intersect, subtract, union } from './intervals.ts';

const SEEDS = Array.from({ length: 300 }, (_, index) => index + 1);
/** Small, so that random intervals touch, overlap and meet the ends. */
const SIZE = 24;

function randomSet(random: Random): { readonly set: Intervals<number>; readonly members: ReadonlySet<number> } {
  let set: Intervals<number> = [];
  const members = new Set<number>();
  for (let rest = random.below(5); rest > 0; rest--) {
    const from = random.below(SIZE);
    const to = from + 1 + random.below(SIZE - from);
    set = union(set, [from, to]);
    for (let member = from; member < to; member++) members.add(member);
  }
  return { set, members };
}

describe('intervals', () => {
  it.each(SEEDS)('agree with sets of single numbers (seed %i)', (seed) => {
    const random = createRandom(seed);
    const [a, b] = [randomSet(random), randomSet(random)];
    const list = (set: Intervals<number>) =>
      Array.from({ length: SIZE }, (_, each) => each).filter((each) => contains(set, each));
    const sorted = (members: Iterable<number>) => [...members].sort((x, y) => x - y);
    expect(list(a.set)).toEqual(sorted(a.members));
    expect(list(union(a.set, b.set))).toEqual(sorted(a.members.union(b.members)));
    expect(list(intersect(a.set, b.set))).toEqual(sorted(a.members.intersection(b.members)));
    expect(list(subtract(a.set, b.set))).toEqual(sorted(a.members.difference(b.members)));
    expect(covers(a.set, b.set)).toBe(b.members.isSubsetOf(a.members));
    // one form for one set: equal members, equal lists, however they were made
    expect(union(subtract(a.set, b.set), intersect(a.set, b.set))).toEqual(a.set);
  });
});

describe('addresses', () => {
  it.each([
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['192.168.1.1/32', '192.168.1.1'],
    ['::/0', '::/0'],
    ['2001:DB8::/32', '2001:db8::/32'],
    ['2001:db8:0:0:1:0:0:1/128', '2001:db8::1:0:0:1'],
    ['fe80::1:0:0/112', 'fe80::1:0:0/112'],
    ['64:ff9b::192.0.2.33/128', '64:ff9b::c000:221'],
  ])('reads %s', (text, expected) => {
    expect(addressTexts(addressesOf(text))).toEqual([expected]);
  });

  it.each([
    '10.0.0.0/33',
    '10.1.2.3/8',
    '010.0.0.0/8',
    '10.0.0.0/08',
    '::ffff:10.0.0.0/104',
    '2001:db8::1/32',
    '10.0.0/8',
    '10.0.0.256/8',
    '10.0.0.0',
    '::/129',
    ':::/0',
    '1:2:3:4:5:6:7:8:9/64',
    'fe80::1%eth0/64',
    '/8',
    '1::2::3/64',
    '10.0.0.0/8/8',
    '1:2:3:4:5:6:7/64',
    '12345::/16',
    '::1.2.3/96',
    '',
  ])('refuses %j as a CIDR', (text) => {
    expect(parseCidr(text)).toBeUndefined();
  });

  it.each(SEEDS)('writes addresses so that they are read again, shortest form (seed %i)', (seed) => {
    const random = createRandom(seed);
    const groups = Array.from({ length: 8 }, () => (random.chance(0.6) ? 0 : random.below(65_536)));
    const long = groups.map((group) => group.toString(16)).join(':');
    const number = parseAddress(long) ?? 0n;
    const short = addressText(number);
    expect(parseAddress(short)).toBe(number);
    expect(short.length).toBeLessThanOrEqual(long.length);
    // the URL parser of the platform writes RFC 5952 as well
    if (number >= 1n << 128n) expect(`[${short}]`).toBe(new URL(`http://[${long}]`).hostname);
  });

  it('keeps the families apart, and writes what is no CIDR as a range', () => {
    const all = union(addressesOf('0.0.0.0/0'), addressesOf('::/0'));
    expect(addressTexts(all)).toEqual(['0.0.0.0/0', '::/0']);
    expect(addressTexts(subtract(all, addressesOf('10.0.0.0/8')))).toEqual([
      '0.0.0.0-9.255.255.255',
      '11.0.0.0-255.255.255.255',
      '::/0',
    ]);
    expect(hasAddress(addressesOf('::/0'), parseAddress('1.2.3.4') ?? 0n)).toBe(false);
  });
});

describe('connections', () => {
  it('join neighbouring ports and stay in 1 to 65535', () => {
    const set = unionConnections(
      unionConnections(portRange('TCP', 80), portRange('TCP', 81, 90)),
      portRange('TCP', 60_000, 70_000),
    );
    expect(portsText(set.TCP)).toBe('80-90,60000-65535');
    expect(hasPort(set, 'TCP', 65_535)).toBe(true);
    expect(hasPort(set, 'UDP', 80)).toBe(false);
    expect(portRange('TCP', 0)).toEqual(portRange('TCP', 70_000));
  });
});
