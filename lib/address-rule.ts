import { BlockList, isIP } from 'node:net';

/**
 * Where no webhook goes unless allowed: networks that are not on the public Internet (IANA special-purpose address
 * registries, RFC 6890), and Azure's address of its own among the public ones.
 */
const REFUSED_V4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '168.63.129.16/32',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
] as const;

/** `::/96` holds `::` and `::1`; 2001::/23 and 2002::/16 tunnel to IPv4 addresses. */
const REFUSED_V6 = [
  '::/96',
  '64:ff9b:1::/48',
  '100::/64',
  '2001::/23',
  '2002::/16',
  'fc00::/7',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
] as const;

/**
 * Where clouds serve credentials to whoever asks from inside (AWS, Google, Azure, Oracle, Alibaba), and link-local addresses. A wider network that is
 * allowed does not open these: only they themselves, or a part of them, do.
 */
const METADATA = [
  '100.100.100.200/32',
  '168.63.129.16/32',
  '169.254.0.0/16',
  '192.0.0.192/32',
  'fd00:ec2::254/128',
  'fd20:ce::254/128',
  'fe80::/10',
] as const;

/** NAT64 (RFC 6052): the last 32 bits are an IPv4 address, to which the same rules apply. */
const NAT64 = { prefix: '64:ff9b::', bits: 96 } as const;

/** True when webhooks may go to this address. */
export type AddressRule = (address: string) => boolean;

/** What is wrong with the networks of a setting, one line each; networks are of the form `10.0.0.0/8` or `fd00::/8`. */
export function networkProblems(setting: string, networks: readonly string[]): string[] {
  return networks
    .filter((network) => !isNetwork(network))
    .map((network) => `${setting}: ${network} is not a network such as 10.1.0.0/16`);
}

function isNetwork(text: string): boolean {
  const [address = '', bits = '', ...rest] = text.split('/');
  const version = isIP(address);
  return version !== 0 && rest.length === 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128);
}

/**
 * The rule: everything public, and `allowed` networks (see `networkProblems`) without the metadata services and link-local
 * addresses that are not named themselves. An IPv4 address inside an IPv6 one counts as itself.
 */
export function createAddressRule(allowed: readonly string[]): AddressRule {
  const open = listOf(allowed);
  const refused = listOf(withNat64([...REFUSED_V4, ...REFUSED_V6]));
  const metadata = listOf(withNat64(METADATA));
  const named = listOf(allowed.filter((network) => METADATA.some((entry) => isWithin(network, entry))));
  return (address) => {
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    if (isIP(address) === 0) return false;
    if (metadata.check(address, family)) return named.check(address, family);
    return open.check(address, family) || !refused.check(address, family);
  };
}

function withNat64(networks: readonly string[]): string[] {
  const inside = networks.map(partsOf).filter(({ family }) => family === 'ipv4');
  return [...networks, ...inside.map(({ address, bits }) => `${NAT64.prefix}${address}/${NAT64.bits + bits}`)];
}

function isWithin(network: string, outer: string): boolean {
  const { address, bits, family } = partsOf(network);
  return bits >= partsOf(outer).bits && listOf([outer]).check(address, family);
}

function listOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const { address, bits, family } of networks.map(partsOf)) list.addSubnet(address, bits, family);
  return list;
}

function partsOf(network: string) {
  const [address = '', bits = ''] = network.split('/');
  return { address, bits: Number(bits), family: isIP(address) === 6 ? 'ipv6' : 'ipv4' } as const;
}
