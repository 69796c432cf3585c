import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { contains, type Intervals, intersect, pairs, subtract, union } from './intervals.ts';

/** A set of ports, 1 to 65535. */
export type PortSet = Intervals<number>;

/** Ports by protocol: what may be connected to. */
export type ConnectionSet = Readonly<Record<Protocol, PortSet>>;

/** Every port of a protocol. */
export const ALL_PORTS: PortSet = [1, 65_536];

/** No connection at all. */
export const NO_CONNECTIONS: ConnectionSet = { TCP: [], UDP: [], SCTP: [] };

/** Every connection. */
export const ALL_CONNECTIONS: ConnectionSet = { TCP: ALL_PORTS, UDP: ALL_PORTS, SCTP: ALL_PORTS };

/** The ports `first` to `last` of one protocol, cut to those that exist. */
export function portRange(protocol: Protocol, first: number, last = first): ConnectionSet {
  const [from, to] = [Math.max(first, 1), Math.min(last, 65_535)];
  return { ...NO_CONNECTIONS, [protocol]: from <= to ? [from, to + 1] : [] };
}

/** Connections in either set. */
export function unionConnections(a: ConnectionSet, b: ConnectionSet): ConnectionSet {
  return { TCP: union(a.TCP, b.TCP), UDP: union(a.UDP, b.UDP), SCTP: union(a.SCTP, b.SCTP) };
}

/** Connections in both sets. */
export function intersectConnections(a: ConnectionSet, b: ConnectionSet): ConnectionSet {
  return { TCP: intersect(a.TCP, b.TCP), UDP: intersect(a.UDP, b.UDP), SCTP: intersect(a.SCTP, b.SCTP) };
}

/** Connections of the first set that are not in the second. */
export function subtractConnections(a: ConnectionSet, b: ConnectionSet): ConnectionSet {
  return { TCP: subtract(a.TCP, b.TCP), UDP: subtract(a.UDP, b.UDP), SCTP: subtract(a.SCTP, b.SCTP) };
}

/** Whether the set holds no connection. */
export function isEmpty(set: ConnectionSet): boolean {
  return PROTOCOLS.every((protocol) => set[protocol].length === 0);
}

/** Whether a connection to this port is in the set. */
export function hasPort(set: ConnectionSet, protocol: Protocol, port: number): boolean {
  return contains(set[protocol], port);
}

/** Ports as text: `80,443,8000-8080`; every port is `1-65535`. */
export function portsText(ports: PortSet): string {
  return [...pairs(ports)].map(([from, to]) => (to - from === 1 ? `${from}` : `${from}-${to - 1}`)).join(',');
}
