import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { HealthView } from '#lib/health-server.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { ClusterFacts } from './facts.ts';
import type { Reconciler } from './reconcile.ts';
import type { EnvironmentRules } from './rules.ts';
import type { Outbox } from './session/outbox.ts';
import type { Reports } from './session/reports.ts';
import type { LinkState, Supervisor } from './session/supervisor.ts';

/** Without a session for longer than this the agent is not ready: a restart or a drain of the broker is over by then. */
const NO_SESSION_MS = 120_000;

/** The parts whose state is shown. */
export interface RunningParts {
  readonly supervisor: Supervisor;
  readonly facts: ClusterFacts;
  readonly reports: Reports;
  readonly outbox: Outbox;
  readonly rules: EnvironmentRules;
  readonly engine: Pick<Reconciler, 'unseen' | 'verification'>;
  readonly agentId: string;
  readonly namespace: string;
}

/** What the health port shows of an agent, from the start on. */
export class AgentView implements HealthView {
  #starting = 'starting';
  /** Who leads, while this replica waits for its turn. */
  #leader: string | undefined;
  #note: string | undefined;
  #dialing: Supervisor | undefined;
  #parts: RunningParts | undefined;

  /** What the start waits for. */
  starting(problem: string, dialing?: Supervisor): void {
    this.#starting = problem;
    this.#leader = undefined;
    if (dialing) this.#dialing = dialing;
  }

  /** Another replica leads; this one is ready to take over. */
  standby(leader: string): void {
    this.#leader = leader;
    this.#parts = undefined;
  }

  /** Whether another replica leads. */
  get isStandby(): boolean {
    return this.#leader !== undefined;
  }

  /** A problem that does not keep the agent from its work. */
  note(problem: string): void {
    this.#note = problem;
  }

  /** The start is over. */
  running(parts: RunningParts): void {
    this.#parts = parts;
  }

  problems(): readonly string[] {
    if (this.#leader !== undefined) return [];
    if (!this.#parts) {
      const detail = this.#dialing?.state.detail;
      return [detail ? `${this.#starting}: ${detail}` : this.#starting];
    }
    const { supervisor, facts, rules } = this.#parts;
    const problems: string[] = rules.problem === undefined ? [] : [rules.problem];
    if (facts.seen && !facts.seen.reachable) {
      const { trouble } = facts.seen;
      problems.push(`the API server of the cluster does not answer${trouble === undefined ? '' : `: ${trouble}`}`);
    }
    if (supervisor.withoutSessionMs > NO_SESSION_MS) {
      problems.push(`no session with the broker: ${supervisor.state.detail || 'dialing'}`);
    }
    return problems;
  }

  state(): unknown {
    if (this.#leader !== undefined) return { status: 'standby', problems: [], leader: this.#leader };
    const problems = this.problems();
    if (!this.#parts) return { status: 'starting', problems };
    const { supervisor, facts, reports, outbox, engine, agentId, namespace } = this.#parts;
    const stacks = [...reports.states.values()].map((stack) => ({
      id: stack.stackId,
      phase: Phase[stack.phase].toLowerCase(),
      health: Health[stack.health].toLowerCase(),
      received_generation: stack.receivedGeneration,
      applied_generation: stack.appliedGeneration,
      objects_ready: stack.objectsReady,
      objects_total: stack.objectsTotal,
      message: stack.message,
      changed_at: stack.changedAt ? new Date(timestampMs(stack.changedAt)).toISOString() : null,
    }));
    return {
      status: problems.length === 0 ? 'ready' : 'not_ready',
      problems,
      ...(this.#note && { note: this.#note }),
      agent_id: agentId,
      namespace,
      session: sessionOf(supervisor.state),
      kubernetes: facts.seen ? { reachable: facts.seen.reachable, latency_ms: Math.round(facts.seen.latencyMs) } : null,
      pending_events: outbox.pending,
      cannot_see: engine.unseen,
      verification: engine.verification,
      stacks,
    };
  }
}

function sessionOf(state: LinkState) {
  const since = new Date(state.sinceMs).toISOString();
  const common = { state: state.kind, transport: state.tier, since, last_error: state.detail || null };
  return state.kind === 'waiting' ? { ...common, retry_at: new Date(state.untilMs).toISOString() } : common;
}
