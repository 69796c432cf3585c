import type { TextTable } from '#flows/emit/text-table.ts';
import type { Model } from '#flows/model/model.ts';
import { type FirewallRule, firewallOf, type PortRange } from './rules.ts';

/** One flow at the edge of the host. */
interface Entry {
  readonly direction: 'Inbound' | 'Outbound';
  readonly protocol: string;
  readonly port: string;
  readonly peer: string;
  readonly purpose: string;
  /** How else it gets here: ` via` an endpoint, at the port there. Empty when it comes directly. */
  readonly detour: string;
}

/**
 * The firewall of a host as people read it: flows with one purpose are one row, and what a flow passes on its way is mentioned, not listed.
 * Inbound rows join sources on the same port, outbound rows join ports of the same destination. Titles and purposes are those of the
 * table `host-NAME`, where the set words them differently. Flows that nobody declared are left out.
 */
export function hostTable(model: Model, name: string): TextTable {
  const entries = firewallOf(model, name).rules.flatMap((rule) => entriesOf(model, name, rule));
  const groups = Map.groupBy(entries, ({ direction, protocol, port, peer, purpose }) =>
    JSON.stringify([direction, protocol, purpose, direction === 'Inbound' ? port : peer]),
  );
  const rows = [...groups.values()].map((group) => {
    const sorted = group.toSorted((a, b) => Number(a.detour !== '') - Number(b.detour !== ''));
    const [{ direction, protocol, purpose }] = sorted as [Entry];
    const detours = unique(sorted.map(({ detour }) => detour).filter((detour) => detour !== ''));
    const direct = detours.length < unique(sorted.map(({ detour }) => detour)).length;
    const detour = detours.length === 0 ? '' : ` (${direct ? 'or ' : ''}${detours.join(' or ')})`;
    const ports = `${unique(sorted.map(({ port }) => port)).join(' or ')}${detour}`;
    return [direction, ports, protocol, unique(sorted.map(({ peer }) => peer)).join(', '), purpose];
  });
  return { title: `Firewall of ${name}`, columns: ['Direction', 'Port', 'Protocol', 'Source/Destination', 'Purpose'], rows };
}

function entriesOf(model: Model, name: string, { direction, protocol, ports, hops }: FirewallRule): Entry[] {
  const table = `host-${name}`;
  const title = (endpoint: string) => {
    const found = model.endpoints.get(endpoint);
    return found?.titles[table] ?? found?.title ?? endpoint;
  };
  return hops
    .filter(({ flow }) => !flow.implicit)
    .map(({ flow, from }) => {
      const first = flow.via[0];
      const passed = direction === 'inbound' && first !== undefined && from.name !== flow.from;
      return {
        direction: direction === 'inbound' ? 'Inbound' : 'Outbound',
        protocol,
        port: portsText(ports),
        peer: title(direction === 'inbound' ? flow.from : flow.to),
        purpose: flow.purposes[table] ?? flow.purpose,
        detour: passed ? `${first.port} via ${title(first.endpoint)}` : '',
      };
    });
}

/** Ports as people write them: `443`, `9092-9094`, `all`; several with commas. */
function portsText(ports: readonly PortRange[]): string {
  return ports
    .map(({ first, last }) => {
      if (first === last) return String(first);
      return first === 1 && last === 65_535 ? 'all' : `${first}-${last}`;
    })
    .join(', ');
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)];
}
