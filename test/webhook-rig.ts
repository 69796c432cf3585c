import { expect } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from './in-process-broker.ts';

/** A subscription, as REST tells it. */
export interface Webhook {
  readonly id: string;
  readonly secret: string;
  readonly enabled: boolean;
  readonly disabled_reason: string | null;
}

/** A delivery, as REST tells it. */
export interface Delivery {
  readonly id: string;
  readonly event_id: string;
  readonly event_type: string;
  readonly payload: string;
  readonly status: string;
  readonly attempts: number;
  readonly last_error: string | null;
  readonly last_error_kind: string | null;
  readonly next_retry_at: string | null;
  readonly completed_at: string | null;
}

/** A broker whose webhooks may reach loopback addresses, and what tests do with it. */
export interface WebhookRig {
  readonly broker: InProcessBroker;
  /** A name that no other test has. */
  unique(prefix: string): string;
  /** Subscribes to everything, unless `fields` say otherwise. */
  subscribe(url: string, fields?: object): Promise<Webhook>;
  /** Newest first. */
  deliveries(webhook: { readonly id: string }, query?: string): Promise<readonly Delivery[]>;
  /** The only delivery of a webhook, once it stands there. */
  settled(webhook: Webhook, status: string): Promise<Delivery>;
  /** Fields of a subscription to one stack only, so that tests do not hear of each other, and what publishes to it. */
  onlyStack(): Promise<{
    readonly event_types: readonly string[];
    readonly filters: object;
    readonly happen: () => Promise<unknown>;
  }>;
}

/** A manifest. */
export const YAML = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';

/** Starts the broker; stopped at the end of the file. `allowedNetworks` are those it may reach itself, loopback unless given. */
export async function startWebhookRig({ allowedNetworks = '127.0.0.0/8' } = {}): Promise<WebhookRig> {
  const env = {
    BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: allowedNetworks,
    BROKKR__BROKER__ENCRYPTION_KEY: 'ab'.repeat(32),
  };
  const broker = await startInProcessBroker({ env });
  let serial = 0;
  const unique = (prefix: string) => `${prefix}-${++serial}`;
  const deliveries: WebhookRig['deliveries'] = async ({ id }, query = '') =>
    (await broker.api<Delivery[]>('GET', `/api/v1/webhooks/${id}/deliveries${query}`)).body;
  return {
    broker,
    unique,
    deliveries,
    async subscribe(url, fields = {}) {
      const body = { name: unique('hook'), url, event_types: ['*'], ...fields };
      const answer = await broker.api<Webhook>('POST', '/api/v1/webhooks', body);
      expect(answer.status, JSON.stringify(answer.body)).toBe(201);
      return answer.body;
    },
    async settled(webhook, status) {
      const standing = async () => (await deliveries(webhook)).map((item) => item.status);
      await expect.poll(standing, { timeout: 30_000 }).toEqual([status]);
      return (await deliveries(webhook))[0] as Delivery;
    },
    async onlyStack() {
      const name = unique('stack');
      const { id } = await broker.publish(name, YAML);
      const happen = () => broker.publish(name, `${YAML}data: {n: "${++serial}"}\n`);
      return { event_types: ['deployment.created'], filters: { stack_id: id }, happen };
    },
  };
}
