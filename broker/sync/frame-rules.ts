import { toJsonString } from '@bufbuild/protobuf';
import { createValidator } from '@bufbuild/protovalidate';
import { BrokkrError } from '#lib/errors.ts';
import { type ClusterNetwork, ClusterNetworkSchema } from '#proto/brokkr/v1/network_pb.js';
import {
  type AgentFacts,
  type AgentMessage,
  type AttemptEvent,
  type BucketEntries,
  type EventBatch,
  type Hello,
  HelloSchema,
  type StackHealth,
  type StackStatus,
  type WebhookTurn,
} from '#proto/brokkr/v1/sync_pb.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const INT4 = 2 ** 31 - 1;
const INT8 = 2n ** 63n - 1n;
/** Items of one frame (PROTOCOL: reports and batches). */
const MAX_ITEMS = 2000;
const MAX_EVENTS = 500;
const MAX_ID = 64;
const MAX_EVENT_TYPE = 50;
const MAX_BUCKETS = 256;
const MAX_CAPABILITIES = 256;
/** `kind:GROUP/KIND` with the longest group and kind, and some room. */
const MAX_CAPABILITY = 512;
const DIGEST_BYTES = 32;
/** Deliveries of webhooks in one turn, and characters of a message about one. */
const MAX_WEBHOOKS = 64;
const MAX_WEBHOOK_MESSAGE = 1024;

const validator = createValidator();

/**
 * Refuses a hello that breaks the contract's rules, or that the database could not store. Throws `protocol_violation`.
 * The transports that Connect serves have checked the rules already; our own framing has not.
 */
export function assertHello(hello: Hello): void {
  const { kind, violations } = validator.validate(HelloSchema, hello);
  if (kind !== 'valid') refuse('hello', violations?.map(({ message }) => message).join('; ') ?? 'it cannot be checked');
  assertFacts('hello', hello.facts);
  const texts = [hello.installId, hello.clusterUid, hello.processId, hello.agentVersion, hello.resume?.bootId ?? ''];
  if (texts.some((text) => text.includes('\0'))) refuse('hello', 'a text has a null character');
}

/**
 * Refuses a frame that could not be stored: reports of all agents are written in sets, and one impossible value would
 * hold up all of them. Throws `protocol_violation` naming the field.
 */
export function assertFrame({ body }: AgentMessage): void {
  switch (body.case) {
    case 'ping':
      assertInt4('ping.kubernetes_latency_ms', body.value.kubernetesLatencyMs ?? 0);
      assertFacts('ping.facts', body.value.facts);
      break;
    case 'status':
      assertCount('status.items', body.value.items.length, MAX_ITEMS);
      body.value.items.forEach(assertStatus);
      break;
    case 'health':
      assertCount('health.items', body.value.items.length, MAX_ITEMS);
      body.value.items.forEach(assertHealth);
      break;
    case 'events':
      assertEvents(body.value);
      break;
    case 'bucketEntries':
      assertBuckets(body.value);
      break;
    case 'answer':
      assertId('answer.id', body.value.id);
      break;
    case 'webhookTurn':
      assertTurn(body.value);
      break;
    case 'nack':
    case 'bye':
    case 'hello':
    case undefined:
  }
}

function assertTurn({ held, ended }: WebhookTurn): void {
  assertCount('webhook_turn.held', held.length, MAX_WEBHOOKS);
  assertCount('webhook_turn.ended', ended.length, MAX_WEBHOOKS);
  for (const id of held) assertId('webhook_turn.held', id);
  for (const [index, { deliveryId, attempt, statusCode, message }] of ended.entries()) {
    const at = `webhook_turn.ended[${index}]`;
    assertId(`${at}.delivery_id`, deliveryId);
    assertInt4(`${at}.attempt`, attempt);
    assertInt4(`${at}.status_code`, statusCode);
    if (message !== '') assertText(`${at}.message`, message, MAX_WEBHOOK_MESSAGE);
  }
}

/** Facts of an agent are stored with it: as many as the contract says, and none too long to compare. */
function assertFacts(field: string, facts: AgentFacts | undefined): void {
  if (!facts) return;
  const pairs = Object.entries(facts.capabilities);
  assertCount(`${field}.capabilities`, pairs.length, MAX_CAPABILITIES);
  const texts = [facts.kubernetesVersion, ...pairs.flat()];
  if (texts.some((text) => text.includes('\0'))) refuse(field, 'a text has a null character');
  if (texts.some((text) => text.length > MAX_CAPABILITY)) refuse(field, `a text has more than ${MAX_CAPABILITY} characters`);
  if (facts.network) assertNetwork(`${field}.network`, facts.network);
}

function assertNetwork(field: string, network: ClusterNetwork): void {
  const { kind, violations } = validator.validate(ClusterNetworkSchema, network);
  if (kind !== 'valid') refuse(field, violations?.map(({ message }) => message).join('; ') ?? 'it cannot be checked');
  if (toJsonString(ClusterNetworkSchema, network).includes('\\u0000')) refuse(field, 'a text has a null character');
}

function assertBuckets({ buckets, entries }: BucketEntries): void {
  assertCount('bucket_entries.buckets', buckets.length, MAX_BUCKETS);
  if (buckets.some((bucket) => bucket >= MAX_BUCKETS)) refuse('bucket_entries.buckets', `buckets are 0 to ${MAX_BUCKETS - 1}`);
  for (const [index, { stackId, manifestDigest }] of entries.entries()) {
    assertId(`bucket_entries.entries[${index}].stack_id`, stackId);
    assertDigest(`bucket_entries.entries[${index}].manifest_digest`, manifestDigest);
  }
}

function assertStatus(item: StackStatus, index: number): void {
  const at = `status.items[${index}]`;
  assertId(`${at}.stack_id`, item.stackId);
  assertInt8(`${at}.received_generation`, item.receivedGeneration);
  assertInt8(`${at}.applied_generation`, item.appliedGeneration);
  assertDigest(`${at}.received_manifest_digest`, item.receivedManifestDigest);
  assertInt4(`${at}.objects_total`, item.objectsTotal);
  assertInt4(`${at}.objects_ready`, item.objectsReady);
}

function assertHealth(item: StackHealth, index: number): void {
  const at = `health.items[${index}]`;
  assertId(`${at}.stack_id`, item.stackId);
  if (item.deploymentObjectId !== '') assertId(`${at}.deployment_object_id`, item.deploymentObjectId);
  assertInt4(`${at}.objects_total`, item.objectsTotal);
  assertInt4(`${at}.objects_ready`, item.objectsReady);
}

function assertEvents({ bootId, events }: EventBatch): void {
  assertText('events.boot_id', bootId, MAX_ID);
  assertCount('events.events', events.length, MAX_EVENTS);
  events.forEach(assertEvent);
}

function assertEvent(event: AttemptEvent, index: number): void {
  const at = `events.events[${index}]`;
  assertInt8(`${at}.seq`, event.seq);
  assertText(`${at}.attempt_id`, event.attemptId, 2 * MAX_ID);
  if (event.stackId !== '') assertId(`${at}.stack_id`, event.stackId);
  if (event.deploymentObjectId !== '') assertId(`${at}.deployment_object_id`, event.deploymentObjectId);
  assertInt8(`${at}.generation`, event.generation);
  if (event.eventType !== '') assertText(`${at}.event_type`, event.eventType, MAX_EVENT_TYPE);
  assertInt4(`${at}.duration_ms`, event.durationMs);
  if (Object.keys(event.counts).some((name) => name.includes('\0'))) refuse(`${at}.counts`, 'a name has a null character');
}

function assertId(field: string, id: string): void {
  if (!UUID.test(id)) refuse(field, 'not a UUID');
}

function assertText(field: string, text: string, most: number): void {
  if (text === '' || text.length > most || text.includes('\0'))
    refuse(field, `must have 1 to ${most} characters, none of them null`);
}

function assertDigest(field: string, digest: Uint8Array): void {
  if (digest.length !== 0 && digest.length !== DIGEST_BYTES)
    refuse(field, `a digest has ${DIGEST_BYTES} bytes, not ${digest.length}`);
}

function assertInt4(field: string, value: number): void {
  if (value > INT4) refuse(field, `must be at most ${INT4}`);
}

function assertInt8(field: string, value: bigint): void {
  if (value > INT8) refuse(field, `must be at most ${INT8}`);
}

function assertCount(field: string, count: number, most: number): void {
  if (count > most) refuse(field, `has ${count} items, at most ${most} are allowed`);
}

function refuse(field: string, reason: string): never {
  throw new BrokkrError('protocol_violation', `${field}: ${reason}`, { details: { field } });
}
