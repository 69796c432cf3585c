import { parseCidr } from '#flows/sets/addresses.ts';
import type { FlowProblem } from './document.ts';
import { DNS_ENDPOINT } from './endpoints.ts';
import type { EndpointBody, FlowSetSpec, FlowSpec, PlacedFlow } from './flowset.ts';
import { listOf } from './flowset.ts';
import { policyPart } from './policy-part.ts';
import { parsePort } from './ports.ts';
import { cidrContains, RANGE_NAMES } from './ranges.ts';
import { checkSelector, type Report } from './selector-check.ts';

/** What the checks of names need. */
interface Names {
  readonly zones: ReadonlySet<string>;
  readonly endpoints: ReadonlySet<string>;
  readonly profiles: ReadonlySet<string>;
}

/** Everything that is wrong in a set of the right form, whatever the profile: names, duplicates, addresses, ports, dates. */
export function checkFlowSet(
  spec: FlowSetSpec,
  flows: readonly PlacedFlow[],
  profiles: readonly string[],
  placeOf: (...path: readonly (string | number)[]) => string,
): FlowProblem[] {
  const problems: FlowProblem[] = [];
  const report: Report = (path, message) => problems.push({ place: placeOf('spec', ...path), message });
  const names: Names = {
    zones: new Set(spec.zones.map(({ name }) => name)),
    endpoints: new Set([...Object.keys(spec.endpoints), DNS_ENDPOINT]),
    profiles: new Set(profiles),
  };
  checkZones(spec, report);
  checkEndpoints(spec, names, report);
  const ids = new Set<string>();
  for (const { flow, path } of flows) {
    if (ids.has(flow.id)) report([...path, 'id'], `flow id ${flow.id} is used twice`);
    ids.add(flow.id);
    checkFlow(flow, names, (below, message) => report([...path, ...below], `flow ${flow.id}: ${message}`));
  }
  for (const [index, { lint, subject = '' }] of (spec.accepted ?? []).entries()) {
    const known = subject === '' || ids.has(subject) || names.endpoints.has(subject) || names.zones.has(subject);
    if (!known) report(['accepted', index, 'subject'], `${lint} is accepted for ${subject}, which is no flow, endpoint or zone`);
  }
  return problems;
}

function checkZones(spec: FlowSetSpec, report: Report): void {
  const [names, namespaces] = [new Set<string>(), new Map<string, string>()];
  for (const [index, { name, namespace, cluster = '', isolate }] of spec.zones.entries()) {
    if (names.has(name)) report(['zones', index, 'name'], `zone ${name} is declared twice`);
    names.add(name);
    if (namespace === undefined) {
      if (isolate && isolate.length > 0)
        report(['zones', index, 'isolate'], `zone ${name} has no namespace, so nothing can be isolated in it`);
      continue;
    }
    const key = `${cluster}/${namespace}`;
    const other = namespaces.get(key);
    if (other !== undefined) report(['zones', index, 'namespace'], `namespace ${namespace} is that of zone ${other} already`);
    namespaces.set(key, name);
  }
}

function checkEndpoints(spec: FlowSetSpec, names: Names, report: Report): void {
  const parts = new Map<string, string>([['default-deny', 'the default denial of its zone']]);
  for (const [name, { profiles = {}, ...body }] of Object.entries(spec.endpoints)) {
    const path = ['endpoints', name];
    const other = parts.get(policyPart(name));
    if (other !== undefined) report(path, `endpoint ${name} and ${other} would have policies of one name`);
    parts.set(policyPart(name), `endpoint ${name}`);
    const kinds = checkBody(body, names, (below, message) => report([...path, ...below], `endpoint ${name}: ${message}`));
    if (kinds !== 1) report(path, `endpoint ${name} needs exactly one of ${IDENTITIES}, it has ${kinds}`);
    for (const [profile, overlay] of Object.entries(profiles)) {
      if (!names.profiles.has(profile)) report([...path, 'profiles', profile], unknown('profile', profile, names.profiles));
      checkOverlay(overlay, names, [...path, 'profiles', profile], report);
    }
  }
  for (const [name, overlay] of Object.entries(spec.options ?? {})) {
    if (!Object.hasOwn(spec.endpoints, name)) report(['options', name], unknown('endpoint', name, names.endpoints));
    checkOverlay(overlay, names, ['options', name], report);
  }
}

function checkOverlay(overlay: EndpointBody, names: Names, path: readonly (string | number)[], report: Report): void {
  const kinds = checkBody(overlay, names, (below, message) => report([...path, ...below], message));
  if (kinds > 1) report(path, `an overlay may have one of ${IDENTITIES}, it has ${kinds}`);
}

const IDENTITIES = 'pods, namespaces, cidr, any, builtin, names, a Service of type ExternalName';

/** Checks a body and returns how many identities it has. */
function checkBody(body: EndpointBody, names: Names, report: Report): number {
  const { zone, pods, namespaces, cidr, except, any, builtin, services = [] } = body;
  if (zone !== undefined && !names.zones.has(zone)) report(['zone'], unknown('zone', zone, names.zones));
  if (pods) checkSelector(pods, (below, message) => report(['pods', ...below], message));
  if (namespaces) checkSelector(namespaces, (below, message) => report(['namespaces', ...below], message));
  if (except !== undefined && cidr === undefined) report(['except'], 'except goes with cidr');
  checkRanges(body, report);
  for (const [index, { type, externalName, name }] of services.entries()) {
    if ((type === 'ExternalName') !== (externalName !== undefined))
      report(['services', index], `service ${name}: externalName goes with the type ExternalName, and only with it`);
  }
  const named = body.names !== undefined || services.some(({ type }) => type === 'ExternalName');
  const identities = [
    pods !== undefined && namespaces === undefined,
    namespaces !== undefined,
    cidr !== undefined && !named,
    any === true,
    builtin !== undefined,
    named,
  ];
  return identities.filter(Boolean).length;
}

function checkRanges({ cidr, except, firewall }: EndpointBody, report: Report): void {
  const ranges = listOf(cidr);
  const valid = (field: string, range: string, index: number) => {
    if (RANGE_NAMES.includes(range) || parseCidr(range)) return true;
    report([field, index], `${JSON.stringify(range)} is no CIDR and none of the named sets ${RANGE_NAMES.join(', ')}`);
    return false;
  };
  const allValid = ranges.map((range, index) => valid('cidr', range, index)).every(Boolean);
  for (const [index, range] of listOf(except).entries()) {
    // what named sets hold is known with the facts; of them the parts inside are taken
    const literal = valid('except', range, index) && allValid && !RANGE_NAMES.includes(range);
    if (!literal || ranges.some((outer) => RANGE_NAMES.includes(outer))) continue;
    if (!ranges.some((outer) => cidrContains(outer, range, 'strictly')))
      report(['except', index], `except ${range} does not lie inside ${ranges.join(', ')}`);
  }
  for (const [index, range] of (firewall?.cidrs ?? []).entries()) {
    if (!parseCidr(range)) report(['firewall', 'cidrs', index], `${JSON.stringify(range)} is no CIDR`);
  }
}

function checkFlow(flow: FlowSpec, names: Names, report: Report): void {
  for (const field of ['from', 'to'] as const) {
    const ends: readonly unknown[] = listOf(flow[field]);
    if (ends.length === 0) report([], `it needs the field ${field}`);
    for (const end of ends) {
      if (typeof end !== 'string' || !names.endpoints.has(end))
        report([field], unknown('endpoint', String(end), names.endpoints));
    }
  }
  for (const [index, { endpoint }] of (flow.via ?? []).entries()) {
    if (!names.endpoints.has(endpoint)) report(['via', index, 'endpoint'], unknown('endpoint', endpoint, names.endpoints));
  }
  for (const profile of flow.profiles ?? []) {
    if (!names.profiles.has(profile)) report(['profiles'], unknown('profile', profile, names.profiles));
  }
  for (const written of listOf(flow.ports)) {
    const port = typeof written === 'object' ? 'ports must be numbers or texts' : parsePort(written);
    if (typeof port === 'string') report(['ports'], port);
  }
  if (flow.expires !== undefined && !isDate(flow.expires)) report(['expires'], `${flow.expires} is no date (YYYY-MM-DD)`);
  if (flow.required === true && flow.feature !== undefined)
    report(['required'], `it cannot be required and depend on the feature ${flow.feature}`);
}

/** Whether the text is a day of the calendar, as YYYY-MM-DD. */
function isDate(text: string): boolean {
  const [year = 0, month = 0, day = 0] = text.split('-').map(Number);
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && day >= 1 && day <= (days[month - 1] ?? 0);
}

function unknown(what: string, name: string, known: ReadonlySet<string>): string {
  const names = [...known].slice(0, 20).join(', ');
  return `there is no ${what} ${name}, ${known.size === 0 ? 'none is declared' : `known are ${names}${known.size > 20 ? ', …' : ''}`}`;
}
