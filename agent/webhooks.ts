import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { createAddressRule } from '#lib/address-rule.ts';
import type { Clock } from '#lib/clock.ts';
import type { Task } from '#lib/run.ts';
import { createSend, type Outcome, resolveHost, type Send } from '#lib/webhook-send.ts';
import { tracedSend } from '#lib/webhook-trace.ts';
import {
  type WebhookAttempt,
  type WebhookEnd,
  WebhookEndSchema,
  type WebhookTurn,
  type WebhookTurned,
  WebhookTurnSchema,
} from '#proto/brokkr/v1/sync_pb.js';

/** What sending webhooks needs. */
export interface WebhooksDeps {
  readonly send: Send;
  readonly clock: Clock;
}

/** Sends a turn to the broker. */
type TakeTurn = (turn: WebhookTurn) => void;

/** A delivery under way. */
interface Flight {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
  /** Monotonic time at which its lease began at the latest: when the turn that the broker answered was sent. */
  fromMs: number;
}

/** A turn that is not answered yet. */
interface Asked {
  readonly turn: WebhookTurn;
  readonly sentMs: number;
}

/** Deliveries under way at a time. */
const MAX_FLIGHTS = 10;
/** Until the broker names another one. */
const LEASE_MS = 15_000;
/** Of what goes into a frame: characters of a message, and the longest wait that is told (the broker heeds an hour). */
const MAX_MESSAGE = 1024;
const MAX_RETRY_AFTER_MS = 86_400_000;

/**
 * Sends deliveries of webhooks for the broker, which hands them out because this agent has the labels they want. One turn at a time
 * asks for them, renews their leases and tells their ends; a flight whose lease may be over is cut off, so that no other agent
 * sends the same meanwhile. Everything is in memory: what is lost with the process is sent by whoever has the lease next.
 */
export class Webhooks implements Task {
  readonly name = 'webhooks';
  readonly #deps: WebhooksDeps;
  readonly #flights = new Map<string, Flight>();
  /** Ends that the broker has not confirmed, by delivery. */
  readonly #ends = new Map<string, WebhookEnd>();
  #takeTurn: TakeTurn | undefined;
  #asked: Asked | undefined;
  #isDue = false;
  #turns = 0n;
  #leaseMs = LEASE_MS;

  constructor(deps: WebhooksDeps) {
    this.#deps = deps;
  }

  /** Turns go through this session from now on; what another one was asked is asked again. */
  connect(takeTurn: TakeTurn): void {
    this.#takeTurn = takeTurn;
    this.#asked = undefined;
    this.#isDue ||= this.#flights.size + this.#ends.size > 0;
    this.#advance();
  }

  /** That session is over. */
  disconnect(takeTurn: TakeTurn): void {
    if (this.#takeTurn === takeTurn) this.#takeTurn = undefined;
  }

  /** The broker says that something waits. */
  told(): void {
    this.#isDue = true;
    this.#advance();
  }

  /** Begins to send a delivery of the present turn, unless it came so late that it may be another agent's by now. */
  attempt(attempt: WebhookAttempt): void {
    const asked = this.#asked;
    if (!asked || attempt.turn !== asked.turn.turn || this.#isLate(asked.sentMs)) return;
    const id = attempt.deliveryId;
    this.#cutOff(id, 'it was handed out again');
    const stop = new AbortController();
    const ended = this.#send(attempt, stop.signal);
    this.#flights.set(id, { stop, ended, fromMs: asked.sentMs });
  }

  /** The turn is over: its ends are stored, what the broker confirms is held on, the rest is cut off. */
  answered({ turn, held, leaseMs }: WebhookTurned): void {
    const asked = this.#asked;
    if (!asked || turn !== asked.turn.turn) return;
    this.#asked = undefined;
    if (leaseMs > 0) this.#leaseMs = leaseMs;
    for (const id of asked.turn.held) {
      const flight = this.#flights.get(id);
      if (flight && held.includes(id)) flight.fromMs = asked.sentMs;
      else this.#cutOff(id, 'the lease was lost');
    }
    for (const end of asked.turn.ended) if (this.#ends.get(end.deliveryId) === end) this.#ends.delete(end.deliveryId);
    this.#advance();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      await clock.sleep(this.#leaseMs / 3, signal).catch(() => undefined);
      for (const [id, { fromMs }] of this.#flights) if (this.#isLate(fromMs)) this.#cutOff(id, 'the lease may be over');
      if (this.#asked && clock.monotonic() - this.#asked.sentMs > this.#leaseMs) this.#asked = undefined; // nothing it brings would count
      this.#isDue ||= this.#flights.size + this.#ends.size > 0;
      this.#advance();
    }
    const flights = [...this.#flights];
    for (const [id] of flights) this.#cutOff(id, 'the agent is stopping');
    await Promise.all(flights.map(([, { ended }]) => ended));
  }

  /** Past half of the lease; the next look, a third of it later, still comes before its end. */
  #isLate(fromMs: number): boolean {
    return this.#deps.clock.monotonic() - fromMs > this.#leaseMs / 2;
  }

  #advance(): void {
    if (!this.#isDue || this.#asked || !this.#takeTurn) return;
    this.#isDue = false;
    this.#turns += 1n;
    const turn = create(WebhookTurnSchema, {
      turn: this.#turns,
      room: MAX_FLIGHTS - this.#flights.size,
      held: [...this.#flights.keys()],
      ended: [...this.#ends.values()],
    });
    this.#asked = { turn, sentMs: this.#deps.clock.monotonic() };
    this.#takeTurn(turn);
  }

  async #send({ deliveryId, attempt, url, headers, body, timeoutMs }: WebhookAttempt, signal: AbortSignal): Promise<void> {
    const { send, clock } = this.#deps;
    const beganMs = clock.monotonic();
    try {
      const outcome = await send({ url, headers, body, timeoutMs }, signal);
      signal.throwIfAborted();
      this.#flights.delete(deliveryId);
      const durationMs = Math.round(clock.monotonic() - beganMs);
      this.#ends.set(deliveryId, create(WebhookEndSchema, { deliveryId, attempt, durationMs, ...endOf(outcome) }));
      this.told();
    } catch {
      // cut off: whoever has the lease next sends it
    }
  }

  #cutOff(id: string, why: string): void {
    this.#flights.get(id)?.stop.abort(new Error(why));
    this.#flights.delete(id);
  }
}

function endOf(outcome: Outcome): MessageInitShape<typeof WebhookEndSchema> {
  if (outcome.kind === 'delivered') return { statusCode: outcome.statusCode };
  const { failure, message, statusCode, retryAfterMs = 0 } = outcome;
  return {
    failure,
    message: message.replaceAll('\0', '').slice(0, MAX_MESSAGE),
    ...(statusCode !== undefined && { statusCode }),
    retryAfterMs: Math.round(Math.min(retryAfterMs, MAX_RETRY_AFTER_MS)),
  };
}

/** Builds it with the rule of where webhooks may go from here. */
export function createWebhooks(clock: Clock, allowedNetworks: readonly string[]): Webhooks {
  const mayReach = createAddressRule(allowedNetworks);
  return new Webhooks({
    send: tracedSend(createSend({ clock, mayReach, allowedBy: 'agent.webhook_allowed_networks', resolve: resolveHost })),
    clock,
  });
}
