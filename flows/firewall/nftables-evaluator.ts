import { addressesOf, hasAddress, parseAddress } from '#flows/sets/addresses.ts';
import type { Connection } from './connection.ts';

/** A chain of a ruleset as `emitNftables` writes it. */
interface Chain {
  readonly policy: string;
  readonly rules: readonly string[];
}

/**
 * What a ruleset in the form of `emitNftables` says to the first packet of a connection that is not on the loopback: the first rule of
 * the hook's chain that matches decides, then the policy of the chain. Throws an `Error` for a line it does not know.
 */
export function nftablesAllows(ruleset: string, connection: Connection): boolean {
  const { rules, policy } = chainOf(ruleset, connection.direction === 'inbound' ? 'input' : 'output');
  for (const rule of rules) {
    const verdict = verdictOf(rule, connection);
    if (verdict !== undefined) return verdict === 'accept';
  }
  return policy === 'accept';
}

function chainOf(ruleset: string, hook: string): Chain {
  const lines = ruleset.split('\n').map((line) => line.trim());
  const start = lines.indexOf(`chain ${hook} {`);
  const policy = /^type filter hook \w+ priority filter; policy (\w+);$/.exec(lines[start + 1] ?? '')?.[1];
  if (policy === undefined) throw new Error(`no chain ${hook} with a policy`);
  return { policy, rules: lines.slice(start + 2, lines.indexOf('}', start)) };
}

/** Undefined when the rule does not match a new connection of TCP, UDP or SCTP. */
function verdictOf(rule: string, { protocol, port, address }: Connection): string | undefined {
  if (/^(ct state|iif|oif|icmp|icmpv6) /.test(rule)) return undefined;
  const match = /^ip6? [sd]addr \{ (?<addresses>[^}]+) \} (?<protocol>\w+) dport \{ (?<ports>[^}]+) \} (?<verdict>\w+)/.exec(
    rule,
  );
  const { addresses = '', protocol: named = '', ports = '', verdict } = match?.groups ?? {};
  if (verdict === undefined) throw new Error(`unknown rule: ${rule}`);
  const matches =
    named === protocol.toLowerCase() &&
    addresses.split(', ').some((range) => hasAddress(addressesOf(range), parseAddress(address) ?? 0n)) &&
    ports.split(', ').some((range) => {
      const [first = 0, last = first] = range.split('-').map(Number);
      return port >= first && port <= last;
    });
  return matches ? verdict : undefined;
}
