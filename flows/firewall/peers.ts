import type { Endpoint, Model } from '#flows/model/model.ts';
import { addressSet, cidrsOf } from '#flows/sets/cidrs.ts';
import { subtract } from '#flows/sets/intervals.ts';

const ANYWHERE = { IPv4: '0.0.0.0/0', IPv6: '::/0' } as const;

/**
 * The addresses of an endpoint as a host's firewall sees them, as CIDRs of the families of the facts. What is excluded is subtracted, since
 * not every platform can deny. Empty when nothing is known: pods whose hosts are not named, for example.
 */
export function peerCidrs({ facts }: Model, { peer, firewall }: Endpoint): readonly string[] {
  const families = facts.ipFamilies.map((family) => ANYWHERE[family]);
  const within = (cidrs: readonly string[]) =>
    cidrs.filter((cidr) => families.includes(cidr.includes(':') ? '::/0' : '0.0.0.0/0'));
  if (firewall.cidrs.length > 0) return within(cidrsOf(addressSet(firewall.cidrs)));
  switch (peer.kind) {
    case 'pods':
    case 'namespaces':
      return [];
    case 'addresses':
      return within(cidrsOf(subtract(addressSet(peer.cidrs), addressSet(peer.except))));
    case 'any':
      return families;
    case 'kube-api':
      return within(cidrsOf(addressSet(facts.apiServer.endpoints)));
    case 'dns':
      return facts.dns.nodeLocalIP === '' ? [] : within(cidrsOf(addressSet([facts.dns.nodeLocalIP])));
    case 'names':
      return within(cidrsOf(addressSet(peer.cidrs)));
  }
}
