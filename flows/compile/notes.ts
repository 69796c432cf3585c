import type { Hop } from '#flows/model/hops.ts';
import type { Endpoint, Model } from '#flows/model/model.ts';

/** Something to know about what was compiled. */
export interface Note {
  /** Id of a flow, or name of an endpoint. */
  readonly subject: string;
  readonly message: string;
}

/** Collects notes, each once, in order. */
export function createNotes({ facts }: Model) {
  const notes = new Map<string, Note>();
  const told = new Set<string>();
  const add = (subject: string, message: string) => notes.set(`${subject}: ${message}`, { subject, message });
  const addFacts = (subject: string, paths: readonly string[]) => {
    for (const path of paths) {
      if (told.has(`${subject} ${path}`)) continue;
      told.add(`${subject} ${path}`);
      const [field = '', part] = path.split('.');
      const value = facts[field as 'apiServer'];
      const text = JSON.stringify(part === undefined ? value : value[part as 'ports']);
      add(subject, `uses the ${facts.sources[path] ?? 'assumed'} fact ${path} = ${text}`);
    }
  };
  return {
    add,
    addFacts,
    /** What is to be known about one end of a connection that a rule allows. */
    addHop(hop: Hop, peer: Endpoint) {
      addFacts(peer.name, peer.facts);
      for (const { service, port, targetPort, protocol } of hop.mapped)
        add(hop.flow.id, `port ${port}/${protocol} of Service ${service} is target port ${targetPort}, where policies act`);
      const outside = ['addresses', 'names'].includes(hop.from.peer.kind);
      const exposed = outside
        ? hop.to.servicePorts.find(({ type }) => type === 'NodePort' || type === 'LoadBalancer')
        : undefined;
      if (exposed)
        add(
          hop.flow.id,
          `clients come through Service ${exposed.service} (${exposed.type}): their addresses are seen with externalTrafficPolicy: Local only`,
        );
      if (peer.peer.kind === 'kube-api' && facts.cni === 'calico')
        add(peer.name, 'under Calico addresses match the API server; its hosts have policies of their own (HostEndpoint)');
    },
    list: (): readonly Note[] => [...notes.values()],
  };
}
