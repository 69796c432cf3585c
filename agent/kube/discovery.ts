import { errorText } from '#lib/errors.ts';
import { kubeError } from './errors.ts';
import { groupVersionPath, type Resource } from './resource.ts';
import { header, type KubeTransport } from './transport.ts';

const AGGREGATED = ['v2', 'v2beta1'].map(
  (version) => `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`,
);
const ACCEPT = [...AGGREGATED, 'application/json'].join(',');

/** Resources of one group-version, as far as the server can tell. */
export type VersionState =
  | { readonly kind: 'known'; readonly resources: readonly Resource[] }
  | { readonly kind: 'unknown'; readonly reason: string }
  /** Listed by a server without aggregated discovery, resources not asked for yet. */
  | { readonly kind: 'unread' };

/** A served version of a group. */
export interface DiscoveredVersion {
  readonly name: string;
  state: VersionState;
}

/** A served group; the preferred version comes first. */
export interface DiscoveredGroup {
  readonly name: string;
  readonly versions: readonly DiscoveredVersion[];
}

/** One answer of `/api` or `/apis`. */
interface DiscoveryPart {
  readonly etag: string | undefined;
  readonly groups: readonly DiscoveredGroup[];
}

/** What the server serves, and the tags to ask cheaply whether that changed. */
export interface Discovery {
  /** By name; the core group is the empty one. */
  readonly groups: ReadonlyMap<string, DiscoveredGroup>;
  readonly core: DiscoveryPart;
  readonly named: DiscoveryPart;
}

/**
 * Discovers all groups in two requests (aggregated discovery, stable since 1.30), conditional on the tags of `before`. An older server
 * answers with bare group lists: its versions are left `unread`. Rejects when either request fails; a broken aggregated API makes only
 * its own versions `unknown`.
 */
export async function discover(transport: KubeTransport, before: Discovery | undefined, signal: AbortSignal): Promise<Discovery> {
  const [core, named] = await Promise.all([
    part(transport, '/api', before?.core, signal),
    part(transport, '/apis', before?.named, signal),
  ]);
  return { core, named, groups: new Map([...core.groups, ...named.groups].map((group) => [group.name, group])) };
}

/** The resources of one group-version, the classic way. A failure makes it `unknown`; only 404 means that it is not served. */
export async function discoverVersion(
  transport: KubeTransport,
  group: string,
  version: string,
  signal: AbortSignal,
): Promise<VersionState> {
  try {
    const { status, headers, body } = await transport.request(
      'GET',
      groupVersionPath(group, version),
      { verb: 'discovery' },
      signal,
    );
    if (status === 404) return { kind: 'known', resources: [] };
    if (status !== 200) throw kubeError(status, body, header(headers, 'retry-after'));
    const list = JSON.parse(body) as ClassicResourceList;
    return {
      kind: 'known',
      resources: list.resources.filter(({ name }) => !name.includes('/')).map((entry) => classicResource(group, version, entry)),
    };
  } catch (error) {
    if (signal.aborted) throw error;
    return { kind: 'unknown', reason: errorText(error) };
  }
}

async function part(
  transport: KubeTransport,
  path: string,
  before: DiscoveryPart | undefined,
  signal: AbortSignal,
): Promise<DiscoveryPart> {
  const { status, headers, body } = await transport.request(
    'GET',
    path,
    { verb: 'discovery', headers: { accept: ACCEPT, ...(before?.etag !== undefined && { 'if-none-match': before.etag }) } },
    signal,
  );
  if (status === 304 && before) return before;
  if (status !== 200) throw kubeError(status, body, header(headers, 'retry-after'));
  return { etag: header(headers, 'etag'), groups: parse(JSON.parse(body)) };
}

function parse(answer: AggregatedList | ClassicGroupList | ClassicVersions): readonly DiscoveredGroup[] {
  if ('items' in answer) return answer.items.map(aggregatedGroup);
  if ('groups' in answer) return answer.groups.map(classicGroup);
  return [{ name: '', versions: answer.versions.map(unread) }];
}

function aggregatedGroup({ metadata, versions }: AggregatedGroup): DiscoveredGroup {
  const group = metadata.name ?? '';
  return {
    name: group,
    versions: versions.map(({ version, freshness, resources }) => ({
      name: version,
      state:
        freshness === 'Stale'
          ? { kind: 'unknown', reason: `discovery of ${group}/${version} is stale: its API server does not answer` }
          : { kind: 'known', resources: (resources ?? []).map((entry) => aggregatedResource(group, version, entry)) },
    })),
  };
}

function aggregatedResource(group: string, version: string, entry: AggregatedResource): Resource {
  return {
    group,
    version,
    kind: entry.responseKind?.kind ?? '',
    plural: entry.resource,
    namespaced: entry.scope === 'Namespaced',
    verbs: entry.verbs,
  };
}

function classicGroup({ name, versions, preferredVersion }: ClassicGroup): DiscoveredGroup {
  const names = versions.map(({ version }) => version);
  const preferred = preferredVersion?.version;
  return { name, versions: names.toSorted((a, b) => Number(b === preferred) - Number(a === preferred)).map(unread) };
}

function classicResource(group: string, version: string, { name, kind, namespaced, verbs }: ClassicResource): Resource {
  return { group, version, kind, plural: name, namespaced, verbs };
}

function unread(name: string): DiscoveredVersion {
  return { name, state: { kind: 'unread' } };
}

interface AggregatedList {
  readonly items: readonly AggregatedGroup[];
}

interface AggregatedGroup {
  readonly metadata: { readonly name?: string };
  readonly versions: readonly {
    readonly version: string;
    readonly freshness?: string;
    readonly resources?: readonly AggregatedResource[];
  }[];
}

interface AggregatedResource {
  readonly resource: string;
  readonly responseKind?: { readonly kind: string };
  readonly scope: 'Namespaced' | 'Cluster';
  readonly verbs: readonly string[];
}

interface ClassicVersions {
  readonly versions: readonly string[];
}

interface ClassicGroupList {
  readonly groups: readonly ClassicGroup[];
}

interface ClassicGroup {
  readonly name: string;
  readonly versions: readonly { readonly version: string }[];
  readonly preferredVersion?: { readonly version: string };
}

interface ClassicResourceList {
  readonly resources: readonly ClassicResource[];
}

interface ClassicResource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
  readonly verbs: readonly string[];
}
