import { type DescMessage, type DescMethod, getOption, hasOption, isMessage, type Message } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { BrokkrError, type ErrorName } from '#lib/errors.ts';
import { Access, type AccessRule, access } from '#proto/brokkr/v1/options_pb.js';
import type { Principal } from './principal.ts';

const ALLOWS: Readonly<Record<Principal['kind'], readonly Access[]>> = {
  admin: [Access.ADMIN],
  agent: [Access.AGENT, Access.AGENT_SELF, Access.AGENT_ASSOCIATED],
  generator: [Access.GENERATOR, Access.GENERATOR_OWNER],
};

/** The access rule of a method. Throws when it has none: a method without a rule must not start. */
function accessRule(method: DescMethod): AccessRule {
  const rule = hasOption(method, access) ? getOption(method, access) : undefined;
  if (!rule || rule.allow.length === 0) throw new Error(`${method.parent.typeName}/${method.name} has no access rule`);
  return rule;
}

/** True when anybody may call the method without a key. */
export function isPublic(method: DescMethod): boolean {
  return hasOption(method, access) && accessRule(method).allow.includes(Access.PUBLIC);
}

/**
 * Checks role, read-only keys and, for agents, that the request names the caller. Rows are checked where they are read.
 * Throws 403 errors (`admin_required`, `agent_pak_required`, `generator_required`, `forbidden`, `read_only_key`,
 * `agent_pak_mismatch`).
 */
export function assertAccess(method: DescMethod, principal: Principal, request: Message | undefined): void {
  const rule = accessRule(method);
  if (!rule.allow.includes(Access.PUBLIC) && !rule.allow.includes(Access.ANY_KEY)) {
    const granted = rule.allow.filter((item) => ALLOWS[principal.kind].includes(item));
    if (granted.length === 0) throw new BrokkrError(refusal(rule), `${principal.kind} keys may not call ${method.name}`);
    if (granted.every((item) => item === Access.AGENT_SELF) && principal.kind === 'agent')
      assertSelf(method, principal.agentId, request);
  }
  if (principal.readOnly && !rule.readOnly)
    throw new BrokkrError('read_only_key', `this key may only read, ${method.name} changes something`);
}

function refusal(rule: AccessRule): ErrorName {
  const only = (...items: Access[]) => rule.allow.every((item) => items.includes(item));
  if (only(Access.ADMIN)) return 'admin_required';
  if (only(Access.AGENT, Access.AGENT_SELF)) return 'agent_pak_required';
  return 'forbidden';
}

/** The agent a request is about is named `agent_id`, or `id` where the agent is the resource itself. */
function assertSelf(method: DescMethod, agentId: string, request: Message | undefined): void {
  if (!request || !isMessage(request, method.input as DescMessage)) return;
  const named = namedAgent(method, request);
  if (named !== undefined && named !== agentId)
    throw new BrokkrError('agent_pak_mismatch', `the key belongs to another agent than ${named}`);
}

function namedAgent(method: DescMethod, request: Message): string | undefined {
  const message = reflect(method.input, request);
  const field = message.desc.field.agentId ?? message.desc.field.id;
  if (!field) return undefined;
  const value = message.get(field);
  return typeof value === 'string' ? value : undefined;
}
