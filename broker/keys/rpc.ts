import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Timestamp, timestampDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { BrokkrError } from '#lib/errors.ts';
import { mintKey } from '#lib/pak.ts';
import { type CreateKeyRequest, KeyRole, type KeySchema, KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { type Command, type Pipeline, principalOf } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import { timestampMs } from '../database.ts';
import { insertKey, type KeyRow, listKeys, listTenants, revokeKey, revokeKeys } from './store.ts';

const ROLE_NAMES = { [KeyRole.ADMIN]: 'admin', [KeyRole.AGENT]: 'agent', [KeyRole.GENERATOR]: 'generator' } as const;
const ROLES = { admin: KeyRole.ADMIN, agent: KeyRole.AGENT, generator: KeyRole.GENERATOR } as const;

/** KeyService. */
export function keyService(pipeline: Pipeline): ServiceImpl<typeof KeyService> {
  const { method } = KeyService;
  return {
    checkPak(_request, ctx) {
      const principal = principalOf(ctx);
      return {
        admin: principal.kind === 'admin',
        ...(principal.kind === 'agent' && { agent: principal.agentId }),
        ...(principal.kind === 'generator' && { generator: principal.generatorId }),
        readonly: principal.readOnly,
      };
    },
    listKeys: pipeline.query(method.listKeys, async (request, { db }) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await listKeys(db, page));
      return { keys: rows.map(toKey), nextPageToken };
    }),
    createKey: pipeline.command(method.createKey, createKey),
    revokeKey: pipeline.command(method.revokeKey, async ({ id }, command) => {
      const row = await revokeKey(command.tx, id);
      if (!row) throw new BrokkrError('key_not_found', `no working key ${id}`);
      command.audit('pak.deleted', 'pak', id);
      command.change({ kind: 'key', ...(row.agent_id !== null && { agentId: row.agent_id }) });
      return {};
    }),
    rotateAdminPak: pipeline.command(method.rotateAdminPak, async ({ graceSeconds }, command) => {
      await revokeKeys(command.tx, { role: 'admin' }, { graceSeconds });
      const minted = mintKey();
      const row = await insertKey(command.tx, { role: 'admin', name: 'rotated', ...minted });
      command.audit('pak.rotated', 'pak', row.id);
      command.change({ kind: 'key' });
      return { pak: command.dryRun ? '' : minted.pak };
    }),
    listPaks: pipeline.query(method.listPaks, async (_request, { db }) => ({ paks: await listTenants(db) })),
  };
}

async function createKey(request: CreateKeyRequest, command: Command) {
  const role = request.role === KeyRole.UNSPECIFIED ? undefined : ROLE_NAMES[request.role];
  const owner = { agent: request.agentId, generator: request.generatorId };
  if (role === undefined) throw new BrokkrError('invalid_key', 'role is not set');
  if ((owner.agent !== undefined) !== (role === 'agent') || (owner.generator !== undefined) !== (role === 'generator')) {
    throw new BrokkrError(
      'invalid_key',
      `a key of role ${role} needs ${role === 'admin' ? 'neither agent_id nor generator_id' : `${role}_id and nothing else`}`,
    );
  }
  await assertOwner(command, owner);
  await assertFuture(command, request.expiresAt);
  const minted = mintKey();
  const row = await insertKey(command.tx, {
    role,
    name: request.name,
    readOnly: request.readOnly,
    hash: minted.hash,
    shortToken: minted.shortToken,
    ...(owner.agent !== undefined && { agentId: owner.agent }),
    ...(owner.generator !== undefined && { generatorId: owner.generator }),
    ...(request.expiresAt && { expiresAt: timestampDate(request.expiresAt) }),
  });
  command.audit('pak.created', 'pak', row.id, { role, name: request.name });
  return { key: toKey(row), pak: command.dryRun ? '' : minted.pak };
}

async function assertOwner(
  { tx }: Command,
  { agent, generator }: { readonly agent: string | undefined; readonly generator: string | undefined },
): Promise<void> {
  if (agent !== undefined && (await tx.query('select from agent where id = $1 and deleted_at is null', [agent])).length === 0) {
    throw new BrokkrError('agent_not_found', `no agent ${agent}`);
  }
  if (
    generator !== undefined &&
    (await tx.query('select from generator where id = $1 and deleted_at is null and not is_system', [generator])).length === 0
  ) {
    throw new BrokkrError('generator_not_found', `no generator ${generator}`);
  }
}

/** By the database's clock, which also decides when the key ends. */
async function assertFuture({ tx }: Command, expiresAt: Timestamp | undefined): Promise<void> {
  if (!expiresAt) return;
  const [row] = await tx.query<{ future: boolean }>('select $1::timestamptz > now() as future', [timestampDate(expiresAt)]);
  if (!row?.future) throw new BrokkrError('invalid_key', 'expires_at is not in the future', { details: { field: 'expires_at' } });
}

function toKey(row: KeyRow): MessageInitShape<typeof KeySchema> {
  const time = (text: string | null) => (text === null ? undefined : timestampFromMs(timestampMs(text)));
  return {
    id: row.id,
    role: ROLES[row.role],
    ...(row.agent_id !== null && { agentId: row.agent_id }),
    ...(row.generator_id !== null && { generatorId: row.generator_id }),
    name: row.name,
    shortToken: row.short_token,
    readOnly: row.read_only,
    expiresAt: time(row.expires_at),
    lastUsedAt: time(row.last_used_at),
    createdAt: timestampFromMs(timestampMs(row.created_at)),
    revokedAt: time(row.revoked_at),
  };
}
