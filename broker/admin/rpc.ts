import { fromJson, type MessageInitShape, toJson } from '@bufbuild/protobuf';
import { TimestampSchema, timestampFromMs, ValueSchema } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { AdminService, type AuditLogSchema, type ListAuditLogsRequest } from '#proto/brokkr/v1/admin_pb.js';
import type { Pipeline } from '../api/command.ts';
import type { Transaction } from '../database.ts';
import { toTimestamp } from '../stacks/rows.ts';
import { type AuditFilter, type AuditRow, countAudit, listAudit } from './store.ts';

/** A session on this replica. */
export interface ConnectionRow {
  readonly agentId: string;
  readonly connectedSinceMs: number;
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly transport: 'stream' | 'poll';
  readonly epoch: bigint;
}

/** What AdminService asks of the sessions. */
export interface AdminDeps {
  /** Sessions on this replica now. */
  readonly connections: () => readonly ConnectionRow[];
  /** Trusts this history, or the present one; returns its incarnation. Agents may delete again after the commit. */
  readonly confirmHistory: (tx: Transaction, incarnation: string | undefined) => Promise<string>;
}

const DEFAULT_LIMIT = 100;

/** AdminService. */
export function adminService(pipeline: Pipeline, { connections, confirmHistory }: AdminDeps): ServiceImpl<typeof AdminService> {
  const { method } = AdminService;
  return {
    listAuditLogs: pipeline.query(method.listAuditLogs, async (request, { db }) => {
      const filter = filterOf(request);
      const limit = request.limit || DEFAULT_LIMIT;
      const logs = await listAudit(db, filter, { limit, offset: request.offset });
      const total = await countAudit(db, filter);
      return { logs: logs.map(toAuditLog), total, count: logs.length, limit: BigInt(limit), offset: request.offset };
    }),
    listConnections: pipeline.query(method.listConnections, async () => {
      const rows = connections();
      return {
        connectedAgents: rows.length,
        connections: rows.map(({ agentId, connectedSinceMs, messagesIn, messagesOut, transport, epoch }) => ({
          agentId,
          connectedSince: timestampFromMs(connectedSinceMs),
          messagesIn: BigInt(messagesIn),
          messagesOut: BigInt(messagesOut),
          transport,
          epoch,
        })),
      };
    }),
    confirmHistory: pipeline.command(method.confirmHistory, async (request, command) => {
      const incarnation = await confirmHistory(command.tx, request.incarnation || undefined);
      command.audit('history.confirmed', 'system', undefined, { incarnation });
      command.change({ kind: 'broker' });
      return { incarnation };
    }),
  };
}

function filterOf(request: ListAuditLogsRequest): AuditFilter {
  const group = request.action.endsWith('*');
  return {
    actorType: request.actorType || undefined,
    actorId: request.actorId || undefined,
    action: group ? undefined : request.action || undefined,
    actionPrefix: group ? request.action.slice(0, -1) : undefined,
    resourceType: request.resourceType || undefined,
    resourceId: request.resourceId || undefined,
    from: request.from && toJson(TimestampSchema, request.from),
    to: request.to && toJson(TimestampSchema, request.to),
  };
}

function toAuditLog(row: AuditRow): MessageInitShape<typeof AuditLogSchema> {
  return {
    id: row.id,
    timestamp: toTimestamp(row.timestamp),
    actorType: row.actor_type,
    actorId: row.actor_id ?? undefined,
    actorName: row.actor_name ?? undefined,
    action: row.action,
    resourceType: row.resource_type,
    resourceId: row.resource_id ?? undefined,
    details: row.details === null ? undefined : fromJson(ValueSchema, row.details as never),
    ipAddress: row.ip_address ?? undefined,
    userAgent: row.user_agent ?? undefined,
    createdAt: toTimestamp(row.created_at),
    keyId: row.key_id ?? undefined,
  };
}
