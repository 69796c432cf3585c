import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import type { Manifest } from '#lib/object.ts';
import type { YamlLimits } from '#lib/yaml.ts';
import { type ApplyOptions, ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import type { ApplyRequest, ApplyResponseSchema } from '#proto/brokkr/v1/stacks_pb.js';
import { GateSchema } from '#proto/brokkr/v1/targeting_pb.js';
import type { Command } from '../api/command.ts';
import type { Principal } from '../api/principal.ts';
import { gateToProto, type StoredGate, storeGate } from '../targeting/gate.ts';
import { findGate } from '../targeting/gate-store.ts';
import { type Acceptance, listReached } from '../targeting/store.ts';
import { type Content, type ContentDeps, publish, readContent } from './content.ts';
import { findDeploymentObjectRow, findManifest } from './content-store.ts';
import { diffManifests, type ManifestChange, manifestFromProto } from './manifest.ts';
import { decodeOptions, encodeOptions, nextOptions, normalOptions, sameOptions } from './options.ts';
import { assertOptions } from './options-check.ts';
import { deploymentObjectToProto, problemToProto, stackToProto } from './rows.ts';
import { assertRules, replaceRules, type WantedRules } from './rules.ts';
import { readSelector } from './selector.ts';
import { newSalt, ownerOf } from './stacks.ts';
import { findStacksByName, insertStack, lockStackByName, moveHead, type StackRow, updateDescription } from './store.ts';

/** Settings of an apply. */
export interface ApplyOptionsOfBroker {
  readonly acceptance: Acceptance;
  readonly limits: YamlLimits;
}

/** What an apply read before its transaction. */
export interface Prepared {
  readonly generatorId: string;
  /** Salt that the content was digested with: that of the stack, or of the one to be made. */
  readonly salt: Uint8Array;
  readonly content: Content | undefined;
}

/** The stack came into being, or was made anew, between reading and writing: read again. Never leaves the service. */
export class SaltChanged extends Error {
  override readonly name = 'SaltChanged';
}

/** Reads what an apply needs before its transaction: the owner, the salt, the content. */
export async function prepareApply(
  deps: ContentDeps,
  request: ApplyRequest,
  principal: Principal,
  limits: YamlLimits,
  signal: AbortSignal,
): Promise<Prepared> {
  const generatorId = await ownerOf(deps.db, principal, request.generatorId);
  assertRules(wantedRules(request));
  assertOptions(request.options);
  const [stack] = await findStacksByName(deps.db, request.name, generatorId);
  const salt = stack?.salt ?? newSalt();
  if (request.yamlContent === undefined) return { generatorId, salt, content: undefined };
  const options = request.options ?? (stack && decodeOptions(stack.options));
  const draft = {
    text: request.yamlContent,
    salt,
    validation: request.validation,
    marker: false,
    allowEmpty: options?.allowEmpty === true,
  };
  return { generatorId, salt, content: await readContent(deps, draft, limits, signal) };
}

function wantedRules({ labels, label, annotations, agents, selector }: ApplyRequest): WantedRules {
  return {
    labels: labels?.values,
    moreLabels: label,
    annotations: annotations && new Map(Object.entries(annotations.values)),
    agents: agents?.values,
    selector: selector && readSelector(selector),
  };
}

/** Brings a stack to what the request says, in the command's transaction; writes nothing when it is so already. */
export async function applyStack(
  request: ApplyRequest,
  command: Command,
  { blobs }: Pick<ContentDeps, 'blobs'>,
  { generatorId, salt, content }: Prepared,
  { acceptance }: ApplyOptionsOfBroker,
): Promise<MessageInitShape<typeof ApplyResponseSchema>> {
  const { tx } = command;
  const { stack: before, created } = await lockOrCreate(command, request, generatorId, salt);
  if (!Buffer.from(salt).equals(before.salt)) throw new SaltChanged('the stack has another salt than its content was read with');
  const described = !created && request.description !== undefined && request.description !== before.description;
  const rules = await replaceRules(command, before, wantedRules(request), acceptance);
  const head = await replaceHead(request, command, { stack: before, created, content }, blobs);
  if (rules || head.moved || created) command.change({ kind: 'stack', stackId: before.id });
  const stack = described ? await updateDescription(tx, before.id, request.description ?? '') : head.stack;
  if (!created && (head.optionsChanged || described)) {
    command.audit('stack.updated', 'stack', stack.id, {
      changed: [...(described ? ['description'] : []), ...(head.optionsChanged ? ['options'] : [])],
    });
  }
  command.etag(stack.version);
  const object = stack.deployment_object_id === null ? undefined : await findDeploymentObjectRow(tx, stack.deployment_object_id);
  return {
    stack: stackToProto(stack),
    ...(object && { deploymentObject: deploymentObjectToProto(object, '') }),
    result: created ? 'created' : rules || head.moved || described ? 'updated' : 'unchanged',
    changes: head.changes,
    targetedAgents: (await listReached(tx, { stackIds: [stack.id], acceptance, withheld: false })).length,
    warnings: (content?.warnings ?? []).map(problemToProto),
  };
}

async function lockOrCreate(command: Command, request: ApplyRequest, generatorId: string, salt: Uint8Array) {
  const { tx } = command;
  const known = await lockStackByName(tx, request.name, generatorId);
  if (known) return { stack: known, created: false };
  const options = encodeOptions(request.options);
  const stack = await insertStack(tx, { name: request.name, description: request.description, generatorId, salt, options });
  if (!stack) throw new SaltChanged('the stack was made by somebody else in this instant');
  command.audit('stack.created', 'stack', stack.id, { name: request.name, generator_id: generatorId });
  return { stack, created: true };
}

interface HeadChange {
  readonly stack: StackRow;
  readonly moved: boolean;
  readonly optionsChanged: boolean;
  readonly changes: ManifestChange[];
}

/** Makes a new head when content, options or gate differ from those of the head there is. Throws `invalid_stack`. */
async function replaceHead(
  request: ApplyRequest,
  command: Command,
  { stack, created, content }: { readonly stack: StackRow; readonly created: boolean; readonly content: Content | undefined },
  blobs: ContentDeps['blobs'],
): Promise<HeadChange> {
  const current = decodeOptions(stack.options);
  const gate = request.gate && storeGate(request.gate, 'invalid_stack');
  const wanted = request.options && nextOptions(current, request.options);
  const optionsChanged = !created && wanted !== undefined && !sameOptions(wanted, current);
  const newContent =
    content && !(stack.manifest_digest && Buffer.from(content.manifestDigest).equals(stack.manifest_digest))
      ? content
      : undefined;
  if (newContent) {
    const changes = diffManifests(await manifestOf(command, stack), newContent.manifest);
    const options = request.options ? normalOptions(request.options) : undefined;
    const { stack: head } = await publish(command, stack, newContent, blobs, { current, wanted: options, gate });
    return { stack: head, moved: true, optionsChanged, changes };
  }
  if (gate && stack.deployment_object_id === null)
    throw new BrokkrError('invalid_stack', 'gate: the stack has no content to hold back');
  const gateChanged = gate !== undefined && !sameGate(gate, await findGate(command.tx, stack.id, stack.generation));
  if (!optionsChanged && !gateChanged) return { stack, moved: false, optionsChanged, changes: [] };
  const head = await changeHead(command, stack, optionsChanged ? wanted : current, optionsChanged ? 'options' : 'gate', gate);
  return { stack: head, moved: true, optionsChanged, changes: [] };
}

function sameGate(a: StoredGate, b: StoredGate | undefined): boolean {
  const bytes = (gate: StoredGate | undefined) => toBinary(GateSchema, create(GateSchema, gate && gateToProto(gate)));
  return Buffer.from(bytes(a)).equals(bytes(b));
}

async function changeHead(
  command: Command,
  stack: StackRow,
  options: ApplyOptions,
  cause: 'options' | 'gate',
  gate: StoredGate | undefined,
): Promise<StackRow> {
  return await moveHead(command.tx, {
    stackId: stack.id,
    deploymentObjectId: stack.deployment_object_id,
    manifestDigest: stack.manifest_digest,
    options: encodeOptions(options),
    cause,
    gate,
    principal: command.principal,
    traceparent: command.traceparent,
  });
}

async function manifestOf({ tx }: Command, stack: StackRow): Promise<Manifest> {
  const head = stack.deployment_object_id === null ? undefined : await findManifest(tx, stack.deployment_object_id);
  return head ? manifestFromProto(fromBinary(ManifestSchema, head.manifest)) : [];
}
