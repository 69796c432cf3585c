import { blockAddresses } from '#flows/evaluate/rules.ts';
import { expandRange } from '#flows/model/ranges.ts';
import { type AddressSet, addressesOf, parseCidr } from '#flows/sets/addresses.ts';
import { covers, intersect, union } from '#flows/sets/intervals.ts';
import { isForApiServerPort, type LintContext, peerPlace } from './policy-context.ts';
import type { OpenFinding, PolicyLint } from './policy-lints.ts';

/** Private (RFC 1918, RFC 4193), shared (RFC 6598) and link-local addresses (RFC 3927, RFC 4291), with the metadata service in them. */
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16', 'fc00::/7', 'fe80::/10'];

/** Lints over `ipBlock`. */
export function addressLints({ rules, facts }: LintContext): OpenFinding[] {
  const cluster = expandRange('cluster', facts);
  const inside = [...PRIVATE, ...cluster].reduce<AddressSet>((set, cidr) => union(set, addressesOf(cidr)), []);
  return rules.flatMap((rule) =>
    rule.written.peers.flatMap(({ ipBlock }, index) => {
      if (!ipBlock) return [];
      const addresses = blockAddresses(ipBlock);
      const about = (lint: PolicyLint, message: string): OpenFinding => ({
        ...{ lint, message, subject: rule.label, place: peerPlace(rule, index) },
      });
      const found: OpenFinding[] = [];
      if (facts.cni === 'cilium' && isForApiServerPort(rule) && covers(inside, addresses))
        found.push(
          about('APISERVER-CIDR-CILIUM', 'under Cilium an ipBlock never matches the API server: use toEntities kube-apiserver'),
        );
      if (parseCidr(ipBlock.cidr)?.size !== 0) return found;
      if ((ipBlock.except ?? []).length === 0) found.push(about('BROAD-CIDR', `${ipBlock.cidr} without except is every address`));
      if (rule.direction === 'ingress') return found;
      const [leaks, ofCluster] = [leaking(addresses, PRIVATE), leaking(addresses, cluster)];
      if (leaks.length > 0) found.push(about('PRIVATE-LEAK', `the way to the Internet is one to ${leaks.join(', ')} too`));
      if (ofCluster.length > 0)
        found.push(about('POD-CIDR-LEAK', `except leaves out addresses of the cluster: ${ofCluster.join(', ')}`));
      return found;
    }),
  );
}

function leaking(addresses: AddressSet, ranges: readonly string[]): string[] {
  return ranges.filter((range) => intersect(addresses, addressesOf(range)).length > 0);
}
