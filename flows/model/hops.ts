import type { Endpoint, Flow, Model, PortSpec, Protocol, ServicePort } from './model.ts';

/** One connection of a flow. A flow through proxies has one to each of them, and one from the last to its destination. */
export interface Hop {
  readonly flow: Flow;
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly protocols: readonly Protocol[];
  /** Target ports: what the destination listens on. Ports of a Service are replaced by those behind it. */
  readonly ports: readonly PortSpec[];
  /** Ports of a Service that were replaced. */
  readonly mapped: readonly ServicePort[];
  /** As in documents. */
  readonly application: string;
  readonly label: string;
}

/** The connections of a flow, in the order of its way. The one to its destination may be an entry of `via`, else the flow describes it. */
export function hopsOf(model: Pick<Model, 'endpoints'>, flow: Flow): Hop[] {
  const { to, ports, application, label } = flow;
  const stops: Stop[] = flow.via.map(({ endpoint, port, ...words }) => {
    return { ...words, to: endpoint, ports: [{ kind: 'range', first: port, last: port }] };
  });
  if (stops.at(-1)?.to !== to) stops.push({ to, ports, application, label });
  return stops.map((stop, index) => hopOf(model, flow, stops[index - 1]?.to ?? flow.from, stop));
}

/** Where a hop leads. */
interface Stop extends Pick<Hop, 'ports' | 'application' | 'label'> {
  readonly to: string;
}

function hopOf(model: Pick<Model, 'endpoints'>, flow: Flow, from: string, { to, ports, ...words }: Stop): Hop {
  const ends = { flow, from: endpointNamed(model, from), to: endpointNamed(model, to), protocols: flow.protocols };
  const mapped: ServicePort[] = [];
  const targets = ports.map((port) => {
    const service = serviceInFront(ends.to, flow.protocols, port);
    if (!service) return port;
    mapped.push(service);
    return targetOf(service);
  });
  return { ...ends, ...words, ports: targets, mapped };
}

/** The port of a Service that the flow names, unless the containers listen on that number too. */
function serviceInFront({ servicePorts }: Endpoint, protocols: readonly Protocol[], port: PortSpec): ServicePort | undefined {
  if (port.kind !== 'range' || port.first !== port.last) return undefined;
  const candidates = servicePorts.filter(({ protocol }) => protocols.includes(protocol));
  if (candidates.some(({ targetPort }) => targetPort === port.first)) return undefined;
  return candidates.find((service) => service.port === port.first);
}

function targetOf({ targetPort }: ServicePort): PortSpec {
  return typeof targetPort === 'string'
    ? { kind: 'name', name: targetPort }
    : { kind: 'range', first: targetPort, last: targetPort };
}

/** The endpoint of a name that the model is known to have. */
export function endpointNamed({ endpoints }: Pick<Model, 'endpoints'>, name: string): Endpoint {
  const endpoint = endpoints.get(name);
  if (!endpoint) throw new Error(`the model has no endpoint ${name}`);
  return endpoint;
}
