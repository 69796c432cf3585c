import type { Protocol } from '#flows/model/model.ts';

/** A new connection at a host, as the firewalls of platforms see it. */
export interface Connection {
  readonly direction: 'inbound' | 'outbound';
  readonly protocol: Protocol;
  /** Destination port. */
  readonly port: number;
  /** Address of the other end. */
  readonly address: string;
  /** Groups or tags of the other end, by the names that rules use. */
  readonly groups: readonly string[];
  /** Whether the other end is a host of the same firewall. */
  readonly own: boolean;
}
