import { errorText } from '#lib/errors.ts';
import { FAILURE_KINDS, type Outcome } from '#lib/webhook-send.ts';
import type { WebhookEnd, WebhookTurn } from '#proto/brokkr/v1/sync_pb.js';
import type { AgentSession } from '../sync/session.ts';
import { findHeldDelivery, listSenders } from './agent-delivery-store.ts';
import type { DeliveriesDeps } from './deliveries.ts';
import { claimDeliveries, renewLeases } from './delivery-store.ts';
import { recordOutcome } from './record.ts';
import { messageOf, requestOf } from './request.ts';

/** What deliveries by agents need. */
export interface AgentDeliveriesDeps
  extends Pick<DeliveriesDeps, 'db' | 'clock' | 'log' | 'random' | 'replicaId' | 'secrets' | 'attempted'> {
  /** The agent's session on this replica. */
  readonly session: (agentId: string) => AgentSession | undefined;
  /** Called when attempts were recorded: the next ones may be due sooner than this replica knows. */
  readonly recorded: () => void;
}

/** Deliveries under way at one agent. */
const MAX_AT_AGENT = 10;
/** Agents that are told at a time; what is still due then is told to others. */
const MAX_TOLD = 16;

/**
 * Deliveries that agents send because their subscriptions have target labels. The lease is the agent's: it asks in turns, each
 * of which ends attempts, renews leases and claims more, at whichever replica has its session; nothing is kept here.
 */
export class AgentDeliveries {
  readonly #deps: AgentDeliveriesDeps;
  readonly #leaseMs: number;
  /** Sessions that were told and have taken no turn since. */
  readonly #told = new WeakSet<AgentSession>();

  constructor(deps: AgentDeliveriesDeps, { leaseMs }: { readonly leaseMs: number }) {
    this.#deps = deps;
    this.#leaseMs = leaseMs;
  }

  /** Tells agents of this replica that something waits for them. */
  async tell(): Promise<void> {
    const { db, replicaId, session } = this.#deps;
    for (const agentId of await listSenders(db, replicaId, MAX_TOLD)) {
      const to = session(agentId);
      if (!to || this.#told.has(to)) continue;
      this.#told.add(to);
      to.push({ case: 'webhooksDue', value: {} });
    }
  }

  /** Takes a turn of an agent and answers it. Without an answer, as when the database fails, the agent asks again. */
  async turn(session: AgentSession, { turn, room, held: wanted, ended }: WebhookTurn): Promise<void> {
    const { db, log, recorded } = this.#deps;
    const { agentId } = session.options;
    this.#told.delete(session);
    try {
      for (const end of ended) await this.#record(agentId, end);
      if (ended.length > 0) recorded();
      const held = wanted.length > 0 ? await renewLeases(db, agentId, wanted, this.#leaseMs) : [];
      const limit = Math.min(room, MAX_AT_AGENT - held.length);
      if (limit > 0) await this.#give(session, turn, limit);
      session.push({ case: 'webhookTurned', value: { turn, held, leaseMs: this.#leaseMs } });
    } catch (error) {
      log.warn({ agent: session.options.agentName, error: errorText(error) }, 'turn of an agent that sends webhooks not taken');
    }
  }

  /** Claims for the agent. Signed here and now: it gets what one attempt takes, and never the signing secret. */
  async #give(session: AgentSession, turn: bigint, limit: number): Promise<void> {
    const { db, secrets, clock, attempted } = this.#deps;
    const { agentId } = session.options;
    const { deliveries } = await claimDeliveries(db, { kind: 'agent', id: agentId }, { limit, leaseMs: this.#leaseMs });
    for (const delivery of deliveries) {
      try {
        const request = requestOf(secrets.open(delivery.subscription), messageOf(delivery), clock.now());
        const value = { turn, deliveryId: delivery.id, attempt: delivery.attempts, ...request };
        session.push({ case: 'webhookAttempt', value });
      } catch (error) {
        attempted('key', 0);
        await recordOutcome(this.#deps, agentId, delivery, { kind: 'failed', failure: 'key', message: errorText(error) });
      }
    }
  }

  async #record(agentId: string, end: WebhookEnd): Promise<void> {
    const { db, attempted } = this.#deps;
    const delivery = await findHeldDelivery(db, { id: end.deliveryId, agentId, attempt: end.attempt });
    if (!delivery) return; // recorded before, or the lease was lost: whoever has it now records
    const outcome = toOutcome(end);
    attempted(outcome.kind === 'delivered' ? 'delivered' : outcome.failure, end.durationMs / 1000);
    await recordOutcome(this.#deps, agentId, delivery, outcome);
  }
}

/** A kind that a newer agent knows and this broker does not is told as a broken connection. */
function toOutcome({ failure, message, statusCode, retryAfterMs }: WebhookEnd): Outcome {
  if (failure === '') return { kind: 'delivered', statusCode };
  return {
    kind: 'failed',
    failure: FAILURE_KINDS.find((kind) => kind === failure) ?? 'connection',
    message,
    ...(statusCode > 0 && { statusCode }),
    ...(retryAfterMs > 0 && { retryAfterMs }),
  };
}
