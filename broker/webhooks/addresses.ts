import { BlockList, isIP } from 'node:net';

/**
 * Where no webhook goes unless allowed: networks that are not on the public Internet (IANA special-purpose address
 * registries, RFC 6890) and addresses at which clouds serve credentials to whoever asks from inside. Those of AWS, Google,
 * Oracle and Alibaba are inside these ranges; Azure's has one of its own.
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

/** NAT64 (RFC 6052): the last 32 bits are an IPv4 address, to which the same rules apply. */
const NAT64 = { prefix: '64:ff9b::', bits: 96 } as const;

/** True when webhooks may go to this address. */
export type AddressRule = (address: string) => boolean;

/** True for a network such as `10.0.0.0/8` or `fd00::/8`. */
export function isNetwork(text: string): boolean {
  const [address = '', bits = '', ...rest] = text.split('/');
  const version = isIP(address);
  return version !== 0 && rest.length === 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128);
}

/** The rule: everything public, and `allowed` networks (each of which `isNetwork`). An IPv4 address inside an IPv6 one counts as itself. */
export function createAddressRule(allowed: readonly string[]): AddressRule {
  const open = listOf(allowed);
  const nat64 = REFUSED_V4.map((network) => {
    const [address = '', bits = ''] = network.split('/');
    return `${NAT64.prefix}${address}/${NAT64.bits + Number(bits)}`;
  });
  const refused = listOf([...REFUSED_V4, ...REFUSED_V6, ...nat64]);
  return (address) => {
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    return isIP(address) !== 0 && (open.check(address, family) || !refused.check(address, family));
  };
}

function listOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits = ''] = network.split('/');
    list.addSubnet(address, Number(bits), isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }
  return list;
}
