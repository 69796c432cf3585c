import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { BrokkrError, type JsonValue } from '#lib/errors.ts';
import { mintKey } from '#lib/pak.ts';
import type { CreateGeneratorRequest, Generator, UpdateGeneratorRequest } from '#proto/brokkr/v1/generators_pb.js';
import { assertVersion } from '../agents/agents.ts';
import type { Command } from '../api/command.ts';
import type { Principal } from '../api/principal.ts';
import { insertKey, revokeKeys } from '../keys/store.ts';
import { toTimestamp } from '../stacks/rows.ts';
import { deleteStacks } from '../stacks/stacks.ts';
import { GeneratorEntity } from './entities.ts';
import { editGenerator, type GeneratorRow, getGenerator, lockStackIds, softDeleteGenerator } from './store.ts';

/** A generator with a key, which is shown only in this answer; empty after a dry run, where it would not work. */
export interface GeneratorWithKey {
  readonly row: GeneratorRow;
  readonly pak: string;
}

/** Owner of the stacks that admins create without naming a generator; found by this name. */
const ADMIN_GENERATOR = 'admin-generator';
const MAX_NAME = 255;
const MAX_DESCRIPTION = 4096;

/** Throws `generator_not_owned` when another generator asks. */
export function assertOwnGenerator(principal: Principal, id: string): void {
  if (principal.kind === 'generator' && principal.generatorId !== id.toLowerCase()) {
    throw new BrokkrError('generator_not_owned', `generator ${id} is another one than the caller`);
  }
}

/** Creates a generator and its first key. */
export async function createGenerator(
  command: Command,
  { name, description }: CreateGeneratorRequest,
): Promise<GeneratorWithKey> {
  const { tx } = command;
  const generator = tx.em.create(GeneratorEntity, { name, description: description ?? null });
  await tx.em.flush();
  command.audit('generator.created', 'generator', generator.id, { name });
  const pak = await newKey(command, generator.id, 'pak.created');
  return { row: await getGenerator(tx, generator.id), pak };
}

/** Changes name, description or activity; nothing is written when the request says nothing new. */
export async function updateGenerator(command: Command, request: UpdateGeneratorRequest): Promise<GeneratorRow> {
  const { tx } = command;
  assertOwnGenerator(command.principal, request.id);
  const entity = await editGenerator(tx.em, request.id);
  const row = await getGenerator(tx, request.id);
  if (!entity || !request.generator) return row;
  assertVersion(command, entity.version);
  const wanted = wantedChanges(row, request.generator, request.updateMask?.paths);
  const changes = changesOf(row, wanted);
  if (Object.keys(changes).length === 0) return row;
  assertChangeable(row, changes);
  tx.em.assign(entity, wanted);
  await tx.em.flush();
  command.audit('generator.updated', 'generator', row.id, changes);
  if ('is_active' in changes) command.change({ kind: 'key' });
  return await getGenerator(tx, row.id);
}

/** Deletes a generator with its stacks and keys. Built-in generators stay. */
export async function deleteGenerator(command: Command, id: string): Promise<void> {
  const { tx } = command;
  assertOwnGenerator(command.principal, id);
  const entity = await editGenerator(tx.em, id);
  const row = await getGenerator(tx, id);
  if (!entity || isBuiltIn(row)) throw new BrokkrError('cannot_delete_system_generator', `generator ${row.name} is built in`);
  assertVersion(command, entity.version);
  const stackIds = await lockStackIds(tx, id);
  await deleteStacks(command, stackIds);
  await softDeleteGenerator(tx, id);
  const keys = await revokeKeys(tx, { generatorId: id });
  command.audit('generator.deleted', 'generator', id, { name: row.name, stacks_deleted: stackIds.length, keys_revoked: keys });
  command.change({ kind: 'key' });
}

/** Replaces all keys of the generator by a new one; old ones go on working for the grace. */
export async function rotateGeneratorPak(
  command: Command,
  { id, graceSeconds }: { readonly id: string; readonly graceSeconds: number },
): Promise<GeneratorWithKey> {
  assertOwnGenerator(command.principal, id);
  const row = await getGenerator(command.tx, id);
  if (row.is_system) throw new BrokkrError('system_generator_not_a_tenant', 'the system generator has no keys');
  await revokeKeys(command.tx, { generatorId: id }, { graceSeconds });
  const pak = await newKey(command, id, 'pak.rotated');
  command.change({ kind: 'key' });
  return { row, pak };
}

async function newKey(command: Command, generatorId: string, action: 'pak.created' | 'pak.rotated'): Promise<string> {
  const { pak, hash, shortToken } = mintKey();
  const name = action === 'pak.created' ? 'initial' : 'rotated';
  const key = await insertKey(command.tx, { role: 'generator', generatorId, name, hash, shortToken });
  command.audit(action, 'pak', key.id, { role: 'generator', generator_id: generatorId, name });
  return command.dryRun ? '' : pak;
}

/** What can be changed. Undefined: left as it is. */
interface Wanted {
  name?: string;
  description?: string | null;
  isActive?: boolean;
}

function changesOf(row: GeneratorRow, { name, description, isActive }: Wanted): Record<string, JsonValue> {
  return {
    ...(name !== undefined && name !== row.name && { name: { from: row.name, to: name } }),
    ...(description !== undefined &&
      description !== row.description && { description: { from: row.description, to: description } }),
    ...(isActive !== undefined && isActive !== row.is_active && { is_active: { from: row.is_active, to: isActive } }),
  };
}

/**
 * What the request changes. Fields that only the broker writes and that move by themselves (`updated_at`,
 * `last_active_at`) are ignored; the other fixed ones must be equal, or unset where there is no mask.
 */
function wantedChanges(row: GeneratorRow, given: Generator, paths: readonly string[] = []): Wanted {
  const masked = paths.length > 0;
  assertImmutable(row, given, masked ? paths : IMMUTABLE.filter((field) => isSet(given, field)));
  const wanted: Wanted = {};
  for (const path of masked ? paths : ['name', 'description', 'is_active']) {
    switch (path) {
      case 'name':
        wanted.name = validName(given.name);
        break;
      case 'description':
        wanted.description = validDescription(given.description ?? null);
        break;
      case 'is_active':
        wanted.isActive = given.isActive;
        break;
      case 'updated_at':
      case 'last_active_at':
        break;
      default:
        if (!(IMMUTABLE as readonly string[]).includes(path)) {
          throw new BrokkrError('invalid_generator', `a generator has no field ${path}`, { details: { field: path } });
        }
    }
  }
  return wanted;
}

const IMMUTABLE = ['id', 'is_system', 'created_at', 'deleted_at'] as const;

function isSet(given: Generator, field: (typeof IMMUTABLE)[number]): boolean {
  switch (field) {
    case 'id':
      return given.id !== '';
    case 'is_system':
      return given.isSystem;
    case 'created_at':
      return given.createdAt !== undefined;
    case 'deleted_at':
      return given.deletedAt !== undefined;
  }
}

function assertImmutable(row: GeneratorRow, given: Generator, paths: readonly string[]): void {
  const same = {
    id: given.id.toLowerCase() === row.id,
    is_system: given.isSystem === row.is_system,
    created_at: sameTime(given.createdAt, row.created_at),
    deleted_at: sameTime(given.deletedAt, row.deleted_at),
  };
  const changed = IMMUTABLE.find((field) => paths.includes(field) && !same[field]);
  if (changed)
    throw new BrokkrError('immutable_field', `${changed} of a generator cannot be changed`, { details: { field: changed } });
}

/** To the millisecond: more than that does not survive every client. */
function sameTime(given: Timestamp | undefined, stored: string | null): boolean {
  if (given === undefined || stored === null) return given === undefined && stored === null;
  const milliseconds = ({ seconds, nanos }: Timestamp) => Number(seconds) * 1000 + Math.floor(nanos / 1e6);
  return milliseconds(given) === milliseconds(toTimestamp(stored));
}

function validName(name: string): string {
  if (name.trim() === '' || name.length > MAX_NAME) {
    throw new BrokkrError(
      'invalid_generator',
      `name has ${name.length} characters, allowed are 1 to ${MAX_NAME}, not all blank`,
      { details: { field: 'name' } },
    );
  }
  return name;
}

function validDescription(description: string | null): string | null {
  if (description !== null && description.length > MAX_DESCRIPTION) {
    throw new BrokkrError(
      'invalid_generator',
      `description has ${description.length} characters, allowed are ${MAX_DESCRIPTION}`,
      {
        details: { field: 'description' },
      },
    );
  }
  return description;
}

function isBuiltIn(row: GeneratorRow): boolean {
  return row.is_system || row.name === ADMIN_GENERATOR;
}

/** Built-in generators are found by name and always work; of them only the description may change. */
function assertChangeable(row: GeneratorRow, changes: Readonly<Record<string, JsonValue>>): void {
  const field = ['name', 'is_active'].find((name) => name in changes);
  if (isBuiltIn(row) && field !== undefined) {
    throw new BrokkrError('immutable_field', `${field} of the built-in generator ${row.name} cannot be changed`, {
      details: { field },
    });
  }
}
