import { createAddressRule } from '#lib/address-rule.ts';
import { createSend, resolveHost, type Send, timedResolve } from '#lib/webhook-send.ts';
import { tracedSend } from '#lib/webhook-trace.ts';
import type { BrokerConfig } from '../config.ts';
import { AgentDeliveries, type AgentDeliveriesDeps } from './agent-deliveries.ts';
import { Deliveries } from './deliveries.ts';

/** What sending webhooks is built on. */
export interface SendingDeps extends Omit<AgentDeliveriesDeps, 'recorded'> {
  /** Told the seconds of each lookup of a name. */
  readonly lookedUp: (seconds: number) => void;
}

/** Who sends webhooks. */
export interface Sending {
  readonly send: Send;
  /** This replica. */
  readonly deliveries: Deliveries;
  /** Agents with target labels. */
  readonly agentDeliveries: AgentDeliveries;
}

/** How long after the death of a replica or an agent another one sends its deliveries. */
const LEASE_MS = 15_000;

/** Builds both ways in which webhooks are sent; each wakes the other. */
export function createSending({ broker: config }: BrokerConfig, { lookedUp, ...deps }: SendingDeps): Sending {
  const mayReach = createAddressRule(config.webhookAllowedNetworks);
  const resolve = timedResolve(resolveHost, deps.clock, lookedUp);
  const rule = { mayReach, allowedBy: 'broker.webhook_allowed_networks' };
  const send = tracedSend(createSend({ clock: deps.clock, ...rule, resolve }));
  const agentDeliveries = new AgentDeliveries({ ...deps, recorded: () => deliveries.wake() }, { leaseMs: LEASE_MS });
  const deliveries: Deliveries = new Deliveries(
    { ...deps, send, tellAgents: () => agentDeliveries.tell() },
    {
      batchSize: config.webhookDeliveryBatchSize,
      intervalMs: config.webhookDeliveryIntervalSeconds * 1000,
      leaseMs: LEASE_MS,
    },
  );
  return { send, deliveries, agentDeliveries };
}
