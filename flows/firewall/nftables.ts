import type { Emitted } from './aws.ts';
import { type FirewallRule, flowIds, type HostFirewall, type PortRange } from './rules.ts';

/** Longest comment of a rule (libnftnl, NFTNL_UDATA_COMMENT_MAXLEN). */
const MAX_COMMENT = 128;

/** Messages without which IP does not work: errors, path MTU discovery, and the neighbours of IPv6 (RFC 4890, 4.3 and 4.4). */
const ICMP = 'icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } accept';
const ICMPV6 =
  'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld2-listener-report } accept';

/**
 * A firewall as a ruleset for `nft -f`: one table of its own, replaced as a whole in one transaction; what belongs to a connection that
 * was let through is let through, and nothing else but the loopback, essential ICMP and the rules. Both families.
 */
export function emitNftables({ name, rules }: HostFirewall): Emitted<string> {
  const table = `inet brokkr_${name.replaceAll(/[^A-Za-z0-9]+/g, '_')}`;
  const chain = (hook: 'input' | 'output', direction: FirewallRule['direction']) => [
    `  chain ${hook} {`,
    `    type filter hook ${hook} priority filter; policy drop;`,
    '    ct state established,related accept',
    '    ct state invalid drop',
    `    ${hook === 'input' ? 'iif' : 'oif'} "lo" accept`,
    `    ${ICMP}`,
    `    ${ICMPV6}`,
    ...rules.filter((rule) => rule.direction === direction).flatMap((rule) => ruleLines(rule, hook).map((line) => `    ${line}`)),
    '  }',
  ];
  const lines = [
    `table ${table} {}`, // so that there is one to delete
    `delete table ${table}`,
    `table ${table} {`,
    ...chain('input', 'inbound'),
    ...chain('output', 'outbound'),
    '}',
  ];
  return { document: `${lines.join('\n')}\n`, warnings: [] };
}

/** One line for each family. Throws an `Error` for a peer that is known as a group only. */
function ruleLines(rule: FirewallRule, hook: 'input' | 'output'): string[] {
  const { cidrs } = rule.peer;
  const ids = flowIds(rule);
  if (cidrs.length === 0) throw new Error(`flow ${ids[0]}: nftables needs addresses: give its peer firewall.cidrs`);
  const side = hook === 'input' ? 'saddr' : 'daddr';
  const comment = ids.join(' ').slice(0, MAX_COMMENT);
  const match = `${rule.protocol.toLowerCase()} dport { ${rule.ports.map(portText).join(', ')} }`;
  const families = [
    ['ip', cidrs.filter((cidr) => !cidr.includes(':'))],
    ['ip6', cidrs.filter((cidr) => cidr.includes(':'))],
  ] as const;
  return families
    .filter(([, ranges]) => ranges.length > 0)
    .map(([family, ranges]) => `${family} ${side} { ${ranges.join(', ')} } ${match} accept comment "${comment}"`);
}

function portText({ first, last }: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}
