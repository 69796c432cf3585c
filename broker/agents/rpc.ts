import type { ServiceImpl } from '@connectrpc/connect';
import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import type { Pipeline } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import { listRegistrations } from '../generators/registrations.ts';
import { deploymentObjectToProto, stackToProto } from '../stacks/rows.ts';
import type { Acceptance } from '../targeting/store.ts';
import { createAgent, deleteAgent, findAgent, listAgents, rotateAgentPak, updateAgent } from './agents.ts';
import { explainTargets } from './explain.ts';
import { addAnnotation, addLabel, removeAnnotation, removeLabel } from './labels.ts';
import { toAgent, toAnnotation, toEvent, toLabel, toRegistration, toTarget } from './messages.ts';
import { createEvent, eventsOfAgent, getEvent, listAgentEvents, reportHealth, sendHeartbeat } from './reports.ts';
import { type AgentRow, assertAgent, getAgent, listAnnotations, listLabels } from './store.ts';
import { addTarget, removeTarget, stacksOf, targetState } from './targets.ts';
import { listTargets } from './targets-store.ts';

/** Settings of AgentService. */
export interface AgentServiceOptions {
  /** Whose stacks reach an agent that does not say so itself. */
  readonly acceptance: Acceptance;
  /** How often agents send heartbeats; presence is judged by it. */
  readonly heartbeatIntervalMs: number;
}

/** AgentService. */
export function agentService(pipeline: Pipeline, options: AgentServiceOptions): ServiceImpl<typeof AgentService> {
  return { ...identity(pipeline, options), ...rules(pipeline, options), ...reports(pipeline) };
}

const { method } = AgentService;
type Part<K extends keyof ServiceImpl<typeof AgentService>> = Pick<ServiceImpl<typeof AgentService>, K>;

function identity(
  pipeline: Pipeline,
  { acceptance, heartbeatIntervalMs }: AgentServiceOptions,
): Part<'listAgents' | 'createAgent' | 'findAgent' | 'getAgent' | 'updateAgent' | 'deleteAgent' | 'rotateAgentPak'> {
  const shape = (row: AgentRow, call: { etag(version: number): void }) => {
    call.etag(row.version);
    return toAgent(row, heartbeatIntervalMs);
  };
  return {
    listAgents: pipeline.query(method.listAgents, async (request, query) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await listAgents(query, { label: request.label, page, acceptance }));
      return { agents: rows.map((row) => toAgent(row, heartbeatIntervalMs)), nextPageToken };
    }),
    createAgent: pipeline.command(method.createAgent, async (request, command) => {
      const { row, pak } = await createAgent(command, request);
      return { agent: shape(row, command), initialPak: pak };
    }),
    findAgent: pipeline.query(method.findAgent, async (request, query) => ({
      agent: shape(await findAgent(query, request), query),
    })),
    getAgent: pipeline.query(method.getAgent, async ({ id }, query) => ({ agent: shape(await getAgent(query.db, id), query) })),
    updateAgent: pipeline.command(method.updateAgent, async (request, command) => ({
      agent: shape(await updateAgent(command, request), command),
    })),
    deleteAgent: pipeline.command(method.deleteAgent, async ({ id }, command) => {
      await deleteAgent(command, id);
      return {};
    }),
    rotateAgentPak: pipeline.command(method.rotateAgentPak, async (request, command) => {
      const { row, pak } = await rotateAgentPak(command, request);
      return { agent: toAgent(row, heartbeatIntervalMs), pak };
    }),
  };
}

function rules(
  pipeline: Pipeline,
  { acceptance }: AgentServiceOptions,
): Omit<ServiceImpl<typeof AgentService>, keyof ReturnType<typeof identity> | keyof ReturnType<typeof reports>> {
  return {
    listAgentLabels: pipeline.query(method.listAgentLabels, async ({ agentId }, { db }) => {
      await assertAgent(db, agentId);
      return { labels: (await listLabels(db, agentId)).map(toLabel) };
    }),
    addAgentLabel: pipeline.command(method.addAgentLabel, async (request, command) => ({
      label: toLabel(await addLabel(command, request)),
    })),
    removeAgentLabel: pipeline.command(method.removeAgentLabel, async (request, command) => {
      await removeLabel(command, request);
      return {};
    }),
    listAgentAnnotations: pipeline.query(method.listAgentAnnotations, async ({ agentId }, { db }) => {
      await assertAgent(db, agentId);
      return { annotations: (await listAnnotations(db, agentId)).map(toAnnotation) };
    }),
    addAgentAnnotation: pipeline.command(method.addAgentAnnotation, async (request, command) => ({
      annotation: toAnnotation(await addAnnotation(command, request)),
    })),
    removeAgentAnnotation: pipeline.command(method.removeAgentAnnotation, async (request, command) => {
      await removeAnnotation(command, request);
      return {};
    }),
    listAgentTargets: pipeline.query(method.listAgentTargets, async ({ agentId }, { db }) => {
      await assertAgent(db, agentId);
      return { targets: (await listTargets(db, agentId)).map(toTarget) };
    }),
    addAgentTarget: pipeline.command(method.addAgentTarget, async (request, command) => ({
      target: toTarget(await addTarget(command, request, acceptance)),
    })),
    removeAgentTarget: pipeline.command(method.removeAgentTarget, async (request, command) => {
      await removeTarget(command, request);
      return {};
    }),
    explainTargets: pipeline.query(method.explainTargets, async (request, query) => ({
      explanations: await explainTargets(query, request, acceptance),
    })),
    getTargetState: pipeline.query(method.getTargetState, async ({ agentId, mode }, query) => ({
      deploymentObjects: (await targetState(query, { agentId, unreportedOnly: mode !== 'full', acceptance })).map((row) =>
        deploymentObjectToProto(row, row.yaml_content),
      ),
    })),
    listAgentStacks: pipeline.query(method.listAgentStacks, async ({ agentId }, query) => ({
      stacks: (await stacksOf(query, { agentId, acceptance })).map(stackToProto),
    })),
    listRegistrations: pipeline.query(method.listRegistrations, async ({ agentId }, { db }) => {
      await assertAgent(db, agentId);
      return { registrations: (await listRegistrations(db, { agentId })).map(toRegistration) };
    }),
  };
}

function reports(
  pipeline: Pipeline,
): Part<'sendHeartbeat' | 'createAgentEvent' | 'listEventsOfAgent' | 'listAgentEvents' | 'getAgentEvent' | 'reportHealth'> {
  // One statement each, nothing to audit and no change of target state: a transaction would only cost round trips.
  const storeEvent = pipeline.query(method.createAgentEvent, async (request, { db, principal }) => ({
    event: toEvent(await createEvent(db, principal, request)),
  }));
  const storeEventOnce = pipeline.command(method.createAgentEvent, async (request, { tx, principal }) => ({
    event: toEvent(await createEvent(tx, principal, request)),
  }));
  return {
    sendHeartbeat: pipeline.query(method.sendHeartbeat, async (request, { db }) => {
      await sendHeartbeat(db, request);
      return {};
    }),
    createAgentEvent: (request, ctx) => (ctx.requestHeader.has('idempotency-key') ? storeEventOnce : storeEvent)(request, ctx),
    listEventsOfAgent: pipeline.query(method.listEventsOfAgent, async (request, query) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await eventsOfAgent(query, request.agentId, page));
      return { events: rows.map(toEvent), nextPageToken };
    }),
    listAgentEvents: pipeline.query(method.listAgentEvents, async (request, query) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await listAgentEvents(query, request, page));
      return { events: rows.map(toEvent), nextPageToken };
    }),
    getAgentEvent: pipeline.query(method.getAgentEvent, async ({ id }, query) => ({ event: toEvent(await getEvent(query, id)) })),
    reportHealth: pipeline.command(method.reportHealth, async (request, { tx, principal }) => {
      await reportHealth(tx, principal, request);
      return {};
    }),
  };
}
