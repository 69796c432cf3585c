import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  type WebhookDeliverySchema,
  WebhookDeliveryStatus,
  type WebhookSchema,
  WebhookService,
} from '#proto/brokkr/v1/webhooks_pb.js';
import { toOptionalTimestamp } from '../agents/messages.ts';
import type { Pipeline } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import { toTimestamp } from '../stacks/rows.ts';
import { type DeliveryRow, type DeliveryStatus, listDeliveries, replayDelivery } from './delivery-store.ts';
import { getSubscription, listSubscriptions, type SubscriptionRow } from './store.ts';
import {
  createWebhook,
  deleteWebhook,
  EVENT_TYPES,
  rotateSecret,
  testWebhook,
  updateWebhook,
  type WebhookDeps,
} from './webhooks.ts';

/** Page of deliveries when the request names no limit. */
const DELIVERIES_PAGE = 50;

const STATUSES: Readonly<Record<DeliveryStatus, WebhookDeliveryStatus>> = {
  pending: WebhookDeliveryStatus.PENDING,
  acquired: WebhookDeliveryStatus.ACQUIRED,
  success: WebhookDeliveryStatus.SUCCESS,
  failed: WebhookDeliveryStatus.FAILED,
  dead: WebhookDeliveryStatus.DEAD,
};

/** WebhookService. */
export function webhookService(pipeline: Pipeline, deps: WebhookDeps): ServiceImpl<typeof WebhookService> {
  const { method } = WebhookService;
  const shape = (row: SubscriptionRow, call: { etag(version: number): void }) => {
    call.etag(row.version);
    return toWebhook(row);
  };
  return {
    listWebhooks: pipeline.query(method.listWebhooks, async (request, { db }) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await listSubscriptions(db, page));
      return { webhooks: rows.map(toWebhook), nextPageToken };
    }),
    listWebhookEventTypes: () => ({ eventTypes: [...EVENT_TYPES] }),
    getWebhook: pipeline.query(method.getWebhook, async ({ id }, query) => ({
      webhook: shape(await getSubscription(query.db, id), query),
    })),
    createWebhook: pipeline.command(method.createWebhook, async (request, command) => {
      const { row, secret } = await createWebhook(command, request, deps);
      return { webhook: { ...shape(row, command), secret } };
    }),
    updateWebhook: pipeline.command(method.updateWebhook, async (request, command) => ({
      webhook: shape(await updateWebhook(command, request, deps), command),
    })),
    deleteWebhook: pipeline.command(method.deleteWebhook, async ({ id }, command) => {
      await deleteWebhook(command, id);
      return {};
    }),
    testWebhook: pipeline.query(method.testWebhook, async ({ id }, { db, ctx }) => {
      const statusCode = await testWebhook(await getSubscription(db, id), deps, ctx.signal);
      return { success: true, statusCode, message: `the endpoint answered ${statusCode}` };
    }),
    rotateWebhookSecret: pipeline.command(method.rotateWebhookSecret, async (request, command) => {
      const { row, secret } = await rotateSecret(command, request, deps);
      return { webhook: { ...shape(row, command), secret } };
    }),
    listWebhookDeliveries: pipeline.query(method.listWebhookDeliveries, async (request, { db }) => {
      const { id, status, offset, pageToken } = request;
      await getSubscription(db, id);
      const page = readPage({ limit: request.limit || DELIVERIES_PAGE, pageToken });
      const filter = { subscriptionId: id, status: statusName(status), offset };
      const { rows, nextPageToken } = page.cut(await listDeliveries(db, filter, page));
      return { deliveries: rows.map(toDelivery), nextPageToken };
    }),
    listDeliveries: pipeline.query(method.listDeliveries, async ({ status, limit, pageToken }, { db }) => {
      const page = readPage({ limit: limit || DELIVERIES_PAGE, pageToken });
      const { rows, nextPageToken } = page.cut(await listDeliveries(db, { status: statusName(status) }, page));
      return { deliveries: rows.map(toDelivery), nextPageToken };
    }),
    replayDelivery: pipeline.command(method.replayDelivery, async ({ id }, command) => {
      const row = await replayDelivery(command.tx, id);
      command.audit('webhook.replayed', 'webhook_subscription', row.subscription_id, { delivery_id: id });
      return { delivery: toDelivery(row) };
    }),
  };
}

function statusName(status: WebhookDeliveryStatus): DeliveryStatus | undefined {
  return (Object.keys(STATUSES) as DeliveryStatus[]).find((name) => STATUSES[name] === status);
}

function toWebhook(row: SubscriptionRow): MessageInitShape<typeof WebhookSchema> {
  const filtered = row.filter_agent_id !== null || row.filter_stack_id !== null || row.filter_labels.length > 0;
  return {
    id: row.id,
    name: row.name,
    eventTypes: [...row.event_types],
    ...(filtered && {
      filters: {
        agentId: row.filter_agent_id ?? undefined,
        stackId: row.filter_stack_id ?? undefined,
        labels: [...row.filter_labels],
      },
    }),
    targetLabels: [...row.target_labels],
    enabled: row.enabled,
    disabledReason: row.disabled_reason ?? undefined,
    maxRetries: row.max_retries,
    timeoutSeconds: row.timeout_seconds,
    hasUrl: true,
    hasAuthHeader: row.has_auth_header,
    createdBy: row.created_by ?? undefined,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
  };
}

function toDelivery(row: DeliveryRow): MessageInitShape<typeof WebhookDeliverySchema> {
  const due = toOptionalTimestamp(row.due_at);
  const missing = row.missing_labels && `no ACTIVE agent with the labels ${row.missing_labels.join(', ')} has a session`;
  return {
    id: row.id,
    subscriptionId: row.subscription_id,
    eventType: row.event_type,
    eventId: row.event_id,
    payload: row.payload,
    status: STATUSES[row.status],
    acquiredBy: row.acquired_by ?? undefined,
    ...(row.status === 'acquired' ? { acquiredUntil: due } : { nextRetryAt: due }),
    attempts: row.attempts,
    lastAttemptAt: toOptionalTimestamp(row.last_attempt_at),
    lastError: missing ?? row.last_error ?? undefined,
    lastErrorKind: missing ? 'no_agent' : (row.last_error_kind ?? undefined),
    statusCode: row.status_code ?? undefined,
    createdAt: toTimestamp(row.created_at),
    completedAt: toOptionalTimestamp(row.completed_at),
  };
}
