import type { Hop } from '#flows/model/hops.ts';
import type { Protocol } from '#flows/model/model.ts';

/** A port of a NetworkPolicy; without `port` every port of the protocol. */
export interface PolicyPort {
  readonly protocol: Protocol;
  readonly port?: number | string;
  readonly endPort?: number;
}

/** The ports of a connection, with the protocol always written. */
export function portsOf({ protocols, ports }: Pick<Hop, 'protocols' | 'ports'>): PolicyPort[] {
  return protocols.flatMap((protocol) =>
    ports.map((port): PolicyPort => {
      if (port.kind === 'all') return { protocol };
      if (port.kind === 'name') return { port: port.name, protocol };
      return { port: port.first, ...(port.last > port.first && { endPort: port.last }), protocol };
    }),
  );
}
