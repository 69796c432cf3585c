import { validateHeaderValue } from 'node:http';
import { timestampDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { activeTraceparent } from '#lib/tracing.ts';
import type { Send } from '#lib/webhook-send.ts';
import type { CreateWebhookRequest, UpdateWebhookRequest, WebhookFilters } from '#proto/brokkr/v1/webhooks_pb.js';
import type { Command } from '../api/command.ts';
import type { Queryable } from '../database.ts';
import { requestOf } from './request.ts';
import { newSigningSecret, type SecretBox, type WebhookSecrets } from './secrets.ts';
import {
  deleteSubscription,
  insertSubscription,
  listSealedOtherwise,
  lockSubscription,
  type SubscriptionFields,
  type SubscriptionRow,
  updateSealed,
  updateSubscription,
} from './store.ts';

/** Every event type; the triggers of `broker/migrations/0006_webhooks.sql` make them. */
export const EVENT_TYPES = [
  'agent.deregistered',
  'agent.registered',
  'deployment.applied',
  'deployment.created',
  'deployment.failed',
  'stack.created',
  'stack.deleted',
] as const;

const PATTERNS: ReadonlySet<string> = new Set(['*', ...EVENT_TYPES, ...EVENT_TYPES.map((type) => `${type.split('.')[0]}.*`)]);
const DEFAULT_ATTEMPTS = 5;
const DEFAULT_TIMEOUT_SECONDS = 30;

/** What commands on subscriptions need besides the transaction. */
export interface WebhookDeps {
  readonly secrets: SecretBox;
  readonly send: Send;
  readonly clock: Clock;
  readonly newId: () => string;
}

/** A new subscription and its signing secret, which is shown only in this answer; empty after a dry run. */
export async function createWebhook(
  command: Command,
  request: CreateWebhookRequest,
  { secrets, newId }: WebhookDeps,
): Promise<{ readonly row: SubscriptionRow; readonly secret: string }> {
  const id = newId();
  const opened = {
    url: validUrl(request.url),
    ...(request.authHeader && { authHeader: validHeader(request.authHeader) }),
    signing: newSigningSecret(),
  };
  const row = await insertSubscription(command.tx, {
    id,
    name: request.name,
    event_types: validEventTypes(request.eventTypes),
    ...filterColumns(request.filters),
    target_labels: request.targetLabels,
    enabled: request.enabled ?? true,
    disabled_reason: null,
    max_retries: request.maxRetries ?? DEFAULT_ATTEMPTS,
    timeout_seconds: request.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS,
    has_auth_header: opened.authHeader !== undefined,
    ...secrets.seal(id, opened),
    createdBy: command.principal.keyId,
  });
  command.audit('webhook.created', 'webhook_subscription', id, { name: row.name, event_types: row.event_types });
  return { row, secret: command.dryRun ? '' : opened.signing };
}

/** Changes what the request sets. */
export async function updateWebhook(
  command: Command,
  request: UpdateWebhookRequest,
  { secrets }: WebhookDeps,
): Promise<SubscriptionRow> {
  const { tx } = command;
  const row = await lockSubscription(tx, request.id);
  assertVersion(command, row);
  const resealed = resealedSecrets(request, row, secrets);
  const changes: Partial<SubscriptionFields> = {
    ...(request.name !== undefined && { name: request.name }),
    ...(request.eventTypes.length > 0 && { event_types: validEventTypes(request.eventTypes) }),
    ...(request.filters && filterColumns(request.filters)),
    ...targetColumns(request),
    ...(request.enabled !== undefined && { enabled: request.enabled, disabled_reason: null }),
    ...(request.maxRetries !== undefined && { max_retries: request.maxRetries }),
    ...(request.timeoutSeconds !== undefined && { timeout_seconds: request.timeoutSeconds }),
    ...resealed,
  };
  const changed = Object.keys(changes).filter((field) => field !== 'sealed' && field !== 'key_id');
  if (resealed) changed.push('secrets');
  if (changed.length === 0) return row;
  command.audit('webhook.updated', 'webhook_subscription', row.id, { changed });
  return await updateSubscription(tx, row.id, { ...row, ...changes });
}

/** Deletes a subscription with its deliveries. */
export async function deleteWebhook(command: Command, id: string): Promise<void> {
  const row = await lockSubscription(command.tx, id);
  assertVersion(command, row);
  await deleteSubscription(command.tx, id);
  command.audit('webhook.deleted', 'webhook_subscription', id, { name: row.name });
}

/** Replaces the signing secret; the old one goes on signing beside it for the grace. */
export async function rotateSecret(
  command: Command,
  { id, graceSeconds }: { readonly id: string; readonly graceSeconds: number },
  { secrets, clock }: WebhookDeps,
): Promise<{ readonly row: SubscriptionRow; readonly secret: string }> {
  const row = await lockSubscription(command.tx, id);
  assertVersion(command, row);
  const { previous: _, signing, ...kept } = secrets.open(row);
  const fresh = newSigningSecret();
  const old = graceSeconds > 0 && { previous: { signing, untilMs: clock.now() + graceSeconds * 1000 } };
  const resealed = secrets.seal(id, { ...kept, signing: fresh, ...old });
  command.audit('webhook.updated', 'webhook_subscription', id, { changed: ['signing_secret'], grace_seconds: graceSeconds });
  return { row: await updateSubscription(command.tx, id, { ...row, ...resealed }), secret: command.dryRun ? '' : fresh };
}

/** Posts a test event, once. Throws `webhook_test_failed`, which says what a delivery would say. */
export async function testWebhook(
  row: SubscriptionRow,
  { secrets, send, clock, newId }: WebhookDeps,
  signal: AbortSignal,
): Promise<number> {
  if (row.target_labels.length > 0) {
    const message = 'agents send what this webhook gets, a test would go out from the broker: replay a delivery instead';
    throw new BrokkrError('webhook_test_failed', message, { details: { kind: null, status_code: null } });
  }
  const [eventId, eventType] = [newId(), 'webhook.test'];
  const timestamp = timestampDate(timestampFromMs(clock.now())).toISOString();
  const payload = JSON.stringify({ id: eventId, event_type: eventType, timestamp, data: { webhook_id: row.id } });
  const event = { eventId, eventType, payload, traceparent: activeTraceparent() };
  const message = { deliveryId: newId(), ...event, timeoutMs: row.timeout_seconds * 1000 };
  const outcome = await send(requestOf(secrets.open(row), message, clock.now()), signal);
  if (outcome.kind === 'delivered') return outcome.statusCode;
  throw new BrokkrError('webhook_test_failed', outcome.message, {
    details: { kind: outcome.failure, status_code: outcome.statusCode ?? null },
  });
}

/** Encrypts with the present key what another key encrypts, or none. What cannot be read stays as it is: the problems say why. */
export async function resealAll(
  tx: Queryable,
  secrets: SecretBox,
): Promise<{ readonly resealed: number; readonly problems: readonly string[] }> {
  const problems: string[] = [];
  const rows = await listSealedOtherwise(tx, secrets.keyId);
  for (const row of rows) {
    try {
      await updateSealed(tx, row.id, secrets.seal(row.id, secrets.open(row)));
    } catch (error) {
      if (!(error instanceof BrokkrError)) throw error;
      problems.push(error.message);
    }
  }
  return { resealed: rows.length - problems.length, problems };
}

function assertVersion(command: Command, { version }: SubscriptionRow): void {
  const expected = command.ifMatch();
  if (expected !== undefined && expected !== version) {
    throw new BrokkrError('precondition_failed', `the webhook is at version ${version}, if-match asks for ${expected}`);
  }
}

/** URL and header are sealed together, so a change of one opens the other. */
function resealedSecrets({ url, authHeader }: UpdateWebhookRequest, row: SubscriptionRow, secrets: SecretBox) {
  if (url === undefined && authHeader === undefined) return undefined;
  const before = secrets.open(row);
  const header = authHeader === undefined ? before.authHeader : authHeader === '' ? undefined : validHeader(authHeader);
  const after: WebhookSecrets = {
    url: url === undefined ? before.url : validUrl(url),
    ...(header !== undefined && { authHeader: header }),
    signing: before.signing,
    ...(before.previous && { previous: before.previous }),
  };
  return { has_auth_header: header !== undefined, ...secrets.seal(row.id, after) };
}

function filterColumns(filters: WebhookFilters | undefined) {
  return {
    filter_agent_id: filters?.agentId ?? null,
    filter_stack_id: filters?.stackId ?? null,
    filter_labels: filters?.labels ?? [],
  };
}

function targetColumns({ targetLabels, clearTargetLabels }: UpdateWebhookRequest) {
  if (clearTargetLabels && targetLabels.length > 0) {
    throw new BrokkrError('invalid_webhook', 'target_labels and clear_target_labels exclude each other', {
      details: { field: 'clear_target_labels' },
    });
  }
  return targetLabels.length > 0 || clearTargetLabels ? { target_labels: targetLabels } : undefined;
}

function validEventTypes(types: readonly string[]): readonly string[] {
  const unknown = types.find((type) => !PATTERNS.has(type));
  if (unknown !== undefined) {
    const message = `event type ${unknown} is not one of ${[...PATTERNS].join(', ')}`;
    throw new BrokkrError('invalid_webhook', message, { details: { field: 'event_types' } });
  }
  return [...new Set(types)];
}

function validUrl(text: string): string {
  if (text.trim() === '') throw new BrokkrError('url_required', 'url is not set', { details: { field: 'url' } });
  const url = URL.parse(text);
  if (!url) throw new BrokkrError('invalid_webhook', 'url is not a URL', { details: { field: 'url' } });
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    const message = `the scheme of url is ${url.protocol.slice(0, -1)}, allowed are https and http`;
    throw new BrokkrError('invalid_url_scheme', message, { details: { field: 'url' } });
  }
  if (url.username !== '' || url.password !== '') {
    throw new BrokkrError('invalid_webhook', 'url has a user or password: use auth_header', { details: { field: 'url' } });
  }
  return url.href;
}

function validHeader(value: string): string {
  try {
    validateHeaderValue('authorization', value);
    return value;
  } catch (error) {
    throw new BrokkrError('invalid_webhook', 'auth_header has characters that a header cannot have', {
      details: { field: 'auth_header' },
      cause: error,
    });
  }
}
