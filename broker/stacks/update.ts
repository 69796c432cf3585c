import { clone } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { BrokkrError } from '#lib/errors.ts';
import { ApplyOptionsSchema } from '#proto/brokkr/v1/content_pb.js';
import { type Stack, StackSchema, type UpdateStackRequest } from '#proto/brokkr/v1/stacks_pb.js';
import type { Command } from '../api/command.ts';
import { timestampMs } from '../database.ts';
import { StackEntity } from './entities.ts';
import { copyOptions, decodeOptions, encodeOptions, nextOptions, normalOptions, sameOptions } from './options.ts';
import { assertOptions } from './options-check.ts';
import { changeSelector, readSelector, type WantedSelector } from './selector.ts';
import { assertVersion, lockOwned } from './stacks.ts';
import { moveHead, type StackRow, stampStack } from './store.ts';

/** What a request wants of a stack; undefined means: leave it. */
interface Edit {
  readonly name: string | undefined;
  readonly description: string | null | undefined;
  readonly options: ReturnType<typeof decodeOptions> | undefined;
  readonly selector: WantedSelector | undefined;
}

const MAX_NAME = 255;
const MAX_DESCRIPTION = 4096;

/**
 * Changes name, description, options and selector. Changed options make a new head. Throws `stack_id_mismatch`, `immutable_field`,
 * `precondition_failed`, `invalid_stack`.
 */
export async function updateStack(request: UpdateStackRequest, command: Command): Promise<StackRow> {
  const { tx } = command;
  const stack = await lockOwned(command, request.id);
  assertVersion(command, stack);
  const edit = readEdit(request, stack);
  assertOptions(edit.options);
  const entity = await tx.em.findOneOrFail(StackEntity, { id: stack.id });
  if (edit.name !== undefined) entity.name = edit.name;
  if (edit.description !== undefined) entity.description = edit.description;
  await tx.em.flush();
  const current = decodeOptions(stack.options);
  const options = edit.options && nextOptions(current, edit.options);
  const changedOptions = options !== undefined && !sameOptions(options, current);
  const renamed = edit.name !== undefined && edit.name !== stack.name;
  const described = edit.description !== undefined && edit.description !== stack.description;
  const reselected = edit.selector !== undefined && (await changeSelector(command, stack, edit.selector));
  if (!changedOptions && !renamed && !described && !reselected) return stack;
  const changed = [...(renamed ? ['name'] : []), ...(described ? ['description'] : []), ...(changedOptions ? ['options'] : [])];
  if (changed.length > 0) command.audit('stack.updated', 'stack', stack.id, { changed });
  if (!changedOptions) {
    if (renamed || reselected) command.change({ kind: 'stack', stackId: stack.id }); // agents are told names
    return await stampStack(tx, stack.id);
  }
  command.change({ kind: 'stack', stackId: stack.id });
  return await moveHead(tx, {
    stackId: stack.id,
    deploymentObjectId: stack.deployment_object_id,
    manifestDigest: stack.manifest_digest,
    options: encodeOptions(options),
    cause: 'options',
    principal: command.principal,
    traceparent: command.traceparent,
  });
}

function readEdit(request: UpdateStackRequest, row: StackRow): Edit {
  const stack = request.stack as Stack; // required by the proto's rules
  if (stack.id !== '' && stack.id !== request.id)
    throw new BrokkrError('stack_id_mismatch', 'the body names another stack than the path');
  const mask = request.updateMask?.paths;
  const named = (path: string, present: boolean) => (mask ? mask.includes(path) : present);
  assertKnown(mask ?? []);
  assertUnchanged(stack, row, named);
  const name = named('name', true) ? stack.name : undefined;
  if (name !== undefined && (name.trim() === '' || name.length > MAX_NAME)) {
    throw new BrokkrError('invalid_stack', `the name must have 1 to ${MAX_NAME} characters, not all of them blank`);
  }
  if ((stack.description?.length ?? 0) > MAX_DESCRIPTION) {
    throw new BrokkrError('invalid_stack', `the description has more than ${MAX_DESCRIPTION} characters`);
  }
  return {
    name,
    description: named('description', true) ? (stack.description ?? null) : undefined,
    options: readOptions(stack, row, mask),
    selector: readWantedSelector(stack, mask),
  };
}

/** Without a mask a selector that is not sent is left alone; named in the mask and not sent, it is taken away. */
function readWantedSelector({ selector }: Stack, mask: readonly string[] | undefined): WantedSelector | undefined {
  if (mask && !mask.includes('selector')) return undefined;
  if (selector) return readSelector(selector);
  return mask ? { bytes: null, clauses: [] } : undefined;
}

function readOptions(stack: Stack, row: StackRow, mask: readonly string[] | undefined) {
  if (!mask) return stack.options && normalOptions(stack.options);
  if (mask.includes('options')) return normalOptions(stack.options);
  const single = mask.filter((path) => path.startsWith('options.')).map((path) => path.slice('options.'.length));
  if (single.length === 0) return undefined;
  const options = clone(ApplyOptionsSchema, decodeOptions(row.options));
  copyOptions(normalOptions(stack.options), options, single);
  return options;
}

function assertKnown(mask: readonly string[]): void {
  for (const path of mask) {
    if (path.startsWith('options.') || StackSchema.fields.some(({ name }) => name === path)) continue;
    throw new BrokkrError('invalid_request', `update_mask names ${path}, which a stack does not have`);
  }
}

/** Fields that are not the caller's to change may be sent back as they were read. */
function assertUnchanged(stack: Stack, row: StackRow, named: (path: string, present: boolean) => boolean): void {
  // whole milliseconds, truncated: what clients with coarser clocks keep of a time
  const ms = (text: string | null) => (text === null ? undefined : timestampMs(text));
  const protoMs = ({ seconds, nanos }: Timestamp) => Number(seconds) * 1000 + Math.floor(nanos / 1_000_000);
  const fields: [string, unknown, unknown, boolean][] = [
    ['generator_id', stack.generatorId, row.generator_id, stack.generatorId !== ''],
    ['created_at', stack.createdAt && protoMs(stack.createdAt), ms(row.created_at), stack.createdAt !== undefined],
    ['updated_at', stack.updatedAt && protoMs(stack.updatedAt), ms(row.updated_at), stack.updatedAt !== undefined],
    ['deleted_at', stack.deletedAt && protoMs(stack.deletedAt), ms(row.deleted_at), stack.deletedAt !== undefined],
    ['generation', stack.generation, BigInt(row.generation), stack.generation !== 0n],
    [
      'deployment_object_id',
      stack.deploymentObjectId,
      row.deployment_object_id ?? undefined,
      stack.deploymentObjectId !== undefined,
    ],
  ];
  for (const [path, sent, is, present] of fields) {
    if (named(path, present) && sent !== is) {
      throw new BrokkrError('immutable_field', `${path} cannot be changed`, { details: { field: path } });
    }
  }
}
