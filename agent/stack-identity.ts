import { createHash } from 'node:crypto';

/** Selects every object any stack of any agent has applied. */
export const STACK_LABEL = 'brokkr.io/stack';
/** `<agent id>/<stack uuid>` on every object we apply. */
export const OWNER_ANNOTATION = 'brokkr.io/owner';
/** Selects the inventories of one agent; the value is `agentShort`. */
export const INVENTORY_LABEL = 'brokkr.io/inventory';
/** Membership in an ApplySet (KEP-3659), so that its tools see our stacks. */
export const APPLYSET_LABEL = 'applyset.kubernetes.io/part-of';

/** Field managers of stacks begin so: a conflict with one of them is a conflict with another stack. */
export const MANAGER_PREFIX = 'brokkr/';

/** How the objects of one stack on one agent are marked. Constant over versions of the stack. */
export interface StackIdentity {
  /** 12 hex digits, unique for (agent, stack). */
  readonly short: string;
  /** Value of the owner annotation. */
  readonly owner: string;
  /** Field manager of server-side apply. */
  readonly fieldManager: string;
  /** Id of the ApplySet whose parent is the inventory head. */
  readonly applySet: string;
  /** Name of the ConfigMap that is the inventory head. */
  readonly headName: string;
  /** Stamped on every object. */
  readonly labels: Readonly<Record<string, string>>;
  /** Stamped on every object. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** Marks of a stack on an agent whose inventories live in `namespace`. */
export function stackIdentity(agentId: string, stackId: string, namespace: string): StackIdentity {
  const owner = `${agentId}/${stackId}`;
  const short = sha256(owner).toString('hex').slice(0, 12);
  const headName = `brokkr-inv-${agentShort(agentId)}-${short}`;
  const applySet = `applyset-${sha256(`${headName}.${namespace}.ConfigMap.`).toString('base64url')}-v1`;
  return {
    short,
    owner,
    fieldManager: `${MANAGER_PREFIX}${short}`,
    applySet,
    headName,
    labels: { [STACK_LABEL]: short, [APPLYSET_LABEL]: applySet },
    annotations: { [OWNER_ANNOTATION]: owner },
  };
}

/** 8 hex digits that name the agent in labels and names. */
export function agentShort(agentId: string): string {
  return sha256(agentId).toString('hex').slice(0, 8);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
