import type { Logger } from '#lib/log.ts';
import { KubeError, missing } from '../kube/errors.ts';
import type { Kube } from '../kube/kube.ts';
import type { KubeObject, ObjectMeta } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { agentShort, INVENTORY_LABEL, type StackIdentity } from '../stack-identity.ts';

const FIELD_MANAGER = 'brokkr-inventory';
const SHARD_LABEL = 'brokkr.io/inventory-shard';

const CONFIG_MAPS: Resource = core('ConfigMap', 'configmaps', true);
const NAMESPACES: Resource = core('Namespace', 'namespaces', false);

/** Another process has written this inventory since we read it. */
export class InventoryTakenError extends Error {
  override readonly name = 'InventoryTakenError';
}

/** Who writes inventories and where. */
export interface InventoryPlace {
  readonly kube: Kube;
  readonly log: Logger;
  readonly agentId: string;
  readonly namespace: string;
  /** Random per process: tells our own writes from those of another one. */
  readonly writer: string;
}

/** What a ConfigMap of an inventory holds. */
export interface MapContent {
  readonly data: Readonly<Record<string, string>>;
  /** Encoded entries (`encodeEntries`). */
  readonly entries: string;
}

interface Known {
  readonly uid: string;
  readonly version: string;
  readonly bytes: number;
}

/**
 * The ConfigMaps of one inventory. Each is written only as long as nobody else has written it: created where none is known, else under
 * the version last seen. After a write whose answer was lost, the next one asks first what became of it.
 */
export class InventoryMaps {
  readonly #place: InventoryPlace;
  readonly #identity: StackIdentity;
  readonly #known = new Map<string, Known>();
  readonly #uncertain = new Set<string>();

  constructor(place: InventoryPlace, identity: StackIdentity) {
    this.#place = place;
    this.#identity = identity;
  }

  /** Names of those known to exist. */
  get names(): string[] {
    return [...this.#known.keys()];
  }

  /** Bytes of their entries, as stored. */
  get bytes(): number {
    return [...this.#known.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Whether one exists. */
  has(name: string): boolean {
    return this.#known.has(name);
  }

  /** Takes what was read as what is there; anything known before is forgotten. */
  restore(objects: Iterable<KubeObject>): void {
    this.#known.clear();
    this.#uncertain.clear();
    for (const object of objects) this.#note(object.metadata, textData(object).entries);
  }

  /** Every ConfigMap of this inventory, read anew. */
  async read(signal: AbortSignal): Promise<KubeObject[]> {
    const { kube, namespace } = this.#place;
    const labelSelector = `${SHARD_LABEL}=${this.#identity.short}`;
    const objects: KubeObject[] = [];
    for await (const { items } of kube.list({ resource: CONFIG_MAPS, namespace, labelSelector, content: 'full' }, signal)) {
      objects.push(...items);
    }
    return objects;
  }

  /** Writes one. Rejects with an `InventoryTakenError` when somebody else did, and with a `KubeError`. */
  async write(name: string, content: MapContent, signal: AbortSignal): Promise<void> {
    if (this.#uncertain.has(name)) await this.#ask(name, signal);
    try {
      const known = this.#known.get(name);
      this.#note(await this.#send(name, content, known, signal), content.entries);
    } catch (error) {
      this.#uncertain.add(name);
      throw error;
    }
  }

  /** Deletes one; nothing happens when it is not there. */
  async remove(name: string, signal: AbortSignal): Promise<void> {
    const { kube, namespace } = this.#place;
    const ref = { resource: CONFIG_MAPS, namespace, name };
    const uid = this.#known.get(name)?.uid ?? (await kube.findMetadata(ref, signal))?.uid;
    if (uid !== undefined) await kube.remove({ ...ref, uid, propagation: 'Background' }, signal);
    this.#known.delete(name);
    this.#uncertain.delete(name);
  }

  async #send(name: string, { data, entries }: MapContent, known: Known | undefined, signal: AbortSignal): Promise<ObjectMeta> {
    const { kube, namespace, agentId, writer } = this.#place;
    const { short, applySet, headName } = this.#identity;
    const isHead = name === headName;
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: {
        ...{ name, namespace },
        labels: {
          [INVENTORY_LABEL]: agentShort(agentId),
          [SHARD_LABEL]: short,
          ...(isHead && { 'applyset.kubernetes.io/id': applySet }),
        },
        ...(isHead && { annotations: { 'applyset.kubernetes.io/tooling': 'brokkr/1' } }),
        ...(known && { resourceVersion: known.version }),
      },
      data: { ...data, writer },
      binaryData: { entries },
    });
    const request = { resource: CONFIG_MAPS, namespace, name, fieldManager: FIELD_MANAGER, force: true, body };
    const call = async () => (known ? await kube.apply(request, signal) : await kube.create(request, signal)).metadata;
    return await this.#retry(() => kube.limiter.run(call, 'high', signal), signal);
  }

  /** Creates the namespace when it is the namespace that is missing. */
  async #retry<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await call();
    } catch (error) {
      if (missing(error, CONFIG_MAPS.plural) !== 'namespace') throw error;
      await createNamespace(this.#place.kube, this.#place.namespace, signal);
      return await call();
    }
  }

  /** Finds out what became of a write whose answer was lost, and whether somebody else wrote meanwhile. */
  async #ask(name: string, signal: AbortSignal): Promise<void> {
    const { kube, namespace, writer } = this.#place;
    const live = await kube.find({ resource: CONFIG_MAPS, namespace, name }, signal);
    if (live && textData(live).writer !== writer && live.metadata.resourceVersion !== this.#known.get(name)?.version) {
      throw new InventoryTakenError(`the inventory ${name} was written by another process`);
    }
    if (live) this.#note(live.metadata, textData(live).entries);
    else this.#known.delete(name);
    this.#uncertain.delete(name);
  }

  #note({ name, uid, resourceVersion }: ObjectMeta, entries = ''): void {
    this.#known.set(name, { uid, version: resourceVersion, bytes: Buffer.byteLength(entries, 'base64') });
  }
}

/** All ConfigMaps of the inventories of an agent, in one list. */
export async function readInventoryMaps(
  { kube, agentId, namespace }: InventoryPlace,
  signal: AbortSignal,
): Promise<KubeObject[]> {
  const labelSelector = `${INVENTORY_LABEL}=${agentShort(agentId)}`;
  const objects: KubeObject[] = [];
  for await (const page of kube.list({ resource: CONFIG_MAPS, namespace, labelSelector, content: 'full', limit: 0 }, signal)) {
    objects.push(...page.items);
  }
  return objects;
}

/** What a ConfigMap of an inventory holds: text keys as they are, binary ones in base64. */
export function textData(object: KubeObject): {
  readonly head?: string;
  readonly sequence?: string;
  readonly writer?: string;
  readonly entries?: string;
} {
  const part = (value: unknown) => (typeof value === 'object' && value !== null ? value : {});
  return { ...part(object.data), ...part(object.binaryData) };
}

/** Creates a namespace unless it is there. */
export async function createNamespace(kube: Kube, namespace: string, signal: AbortSignal): Promise<void> {
  const body = JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  try {
    await kube.create({ resource: NAMESPACES, body }, signal);
  } catch (error) {
    if (!(error instanceof KubeError && error.status === 409)) throw error;
  }
}

function core(kind: string, plural: string, namespaced: boolean): Resource {
  return { group: '', version: 'v1', kind, plural, namespaced, verbs: ['get', 'list', 'patch', 'delete'] };
}
