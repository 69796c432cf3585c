import { endpointNamed, type Hop, hopsOf } from '#flows/model/hops.ts';
import type { Endpoint, Model } from '#flows/model/model.ts';
import { portText } from '#flows/model/ports.ts';

/** A box around elements: a zone, or a layer. */
export interface DrawnGroup {
  readonly id: string;
  readonly title: string;
  readonly elements: readonly DrawnElement[];
}

/** An endpoint in a drawing. */
export interface DrawnElement {
  /** Letters, digits and underscores, unique in the drawing. */
  readonly id: string;
  readonly title: string;
  readonly description: string;
  readonly shape: Endpoint['element'];
}

/** An arrow. */
export interface DrawnRelation {
  /** Id of an element. */
  readonly from: string;
  readonly to: string;
  /** What happens: `Polls & reports`. May be empty. */
  readonly label: string;
  /** How: `HTTPS :3000`. */
  readonly detail: string;
  /** Whether any flow in it is required. */
  readonly required: boolean;
}

/** What there is to draw of a model, in an order that does not depend on the format. */
export interface Drawing {
  readonly title: string;
  /** Outside of every box. */
  readonly loose: readonly DrawnElement[];
  readonly groups: readonly DrawnGroup[];
  /** By source, in the order of the elements. */
  readonly relations: readonly DrawnRelation[];
}

/**
 * A model as elements and arrows: endpoints that a declared flow touches, in boxes by zone (those with a namespace or a cluster) or by layer,
 * and an arrow for every hop. What is implicit is not drawn.
 */
export function drawingOf(model: Model, by: 'zone' | 'layer'): Drawing {
  const hops = model.flows.filter(({ implicit }) => !implicit).flatMap((flow) => hopsOf(model, flow));
  const touched = new Set(hops.flatMap(({ from, to }) => [from.name, to.name]));
  const names = [...model.endpoints.keys()].filter((name) => touched.has(name));
  const ids = identifiers(names);
  const groupOf =
    by === 'zone' ? (endpoint: Endpoint) => zoneGroup(model, endpoint) : (endpoint: Endpoint) => layerGroup(model, endpoint);
  const placed = names.map((name) => {
    const endpoint = endpointNamed(model, name);
    return { group: groupOf(endpoint), element: elementOf(endpoint, ids) };
  });
  return {
    title: model.title === '' ? model.name : model.title,
    loose: placed.filter(({ group }) => group === undefined).map(({ element }) => element),
    groups: groupsOf(model, placed, by),
    relations: names.flatMap((name) =>
      relationsFrom(
        hops.filter(({ from }) => from.name === name),
        ids,
      ),
    ),
  };
}

interface Placed {
  readonly group: { readonly name: string; readonly title: string } | undefined;
  readonly element: DrawnElement;
}

/** Groups in the order of the zones in the file. */
function groupsOf({ zones }: Model, placed: readonly Placed[], by: 'zone' | 'layer'): DrawnGroup[] {
  const order = [...zones.values()].map((zone) => (by === 'zone' ? zone.name : zone.layer));
  const found = new Map(placed.flatMap(({ group }) => (group ? [[group.name, group.title] as const] : [])));
  const ids = identifiers([...found.keys()]);
  return [...new Set(order)].flatMap((name) => {
    const title = found.get(name);
    if (title === undefined) return [];
    const elements = placed.filter(({ group }) => group?.name === name).map(({ element }) => element);
    return [{ id: ids.get(name) ?? name, title, elements }];
  });
}

function zoneGroup({ zones }: Model, { zone }: Endpoint): Placed['group'] {
  const found = zones.get(zone);
  if (!found || (found.namespace === undefined && found.cluster === '')) return undefined;
  return { name: found.name, title: found.title };
}

function layerGroup({ zones }: Model, { zone }: Endpoint): Placed['group'] {
  const layer = zones.get(zone)?.layer ?? '';
  return layer === '' ? undefined : { name: layer, title: layer };
}

function elementOf({ name, title, titles, description, element }: Endpoint, ids: ReadonlyMap<string, string>): DrawnElement {
  return { id: ids.get(name) ?? name, title: titles.diagram ?? title, description, shape: element };
}

/** One arrow for all that looks alike. */
function relationsFrom(hops: readonly Hop[], ids: ReadonlyMap<string, string>): DrawnRelation[] {
  const relations = new Map<string, DrawnRelation>();
  for (const hop of hops) {
    const ends = { from: ids.get(hop.from.name) ?? '', to: ids.get(hop.to.name) ?? '' };
    const words = { label: hop.label === '' ? hop.flow.purpose : hop.label, detail: detailOf(hop) };
    const key = JSON.stringify([ends, words]);
    relations.set(key, { ...ends, ...words, required: hop.flow.required || relations.get(key)?.required === true });
  }
  return [...relations.values()];
}

function detailOf({ application, protocols, ports }: Hop): string {
  const spoken = application === '' ? protocols.join('/') : application;
  const numbers = ports.map(portText).join(', ');
  return numbers === 'all' ? `${spoken}, all ports` : `${spoken} :${numbers}`;
}

/** Words that the languages of diagrams take for themselves. */
const RESERVED = new Set(['end', 'graph', 'subgraph', 'node', 'edge', 'class', 'style', 'click', 'default']);

function identifiers(names: readonly string[]): ReadonlyMap<string, string> {
  const taken = new Set<string>();
  return new Map(
    names.map((name) => {
      let id = name.replaceAll(/[^A-Za-z0-9_]/g, '_');
      while (taken.has(id) || RESERVED.has(id.toLowerCase())) id += '_';
      taken.add(id);
      return [name, id];
    }),
  );
}
