import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { expectShape, type ShapeName } from './shapes.ts';

// C-005, C-020, C-028: every REST route of the broker, in the order in which somebody would use them

type Body = Record<string, never> & { readonly id: string };
/** Ids collected on the way. */
type Ids = Record<'generator' | 'generatorPak' | 'agent' | 'agentPak' | 'stack' | 'object' | 'event' | 'key' | 'spare', string>;

interface Step {
  readonly name: string;
  readonly verb: string;
  readonly path: (ids: Ids) => string;
  readonly body?: (ids: Ids) => unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Key other than the admin's. */
  readonly as?: 'generatorPak' | 'agentPak';
  readonly status: number;
  /** Schema of the answer; in brackets for a bare array; absent for an empty body. */
  readonly shape?: ShapeName | readonly [ShapeName];
  readonly check?: (body: never, ids: Ids) => void;
}

const YAML = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';
let broker: InProcessBroker;
const ids = {} as Ids;
const called = new Set<string>();

beforeAll(async () => {
  broker = await startInProcessBroker();
});

const keep = (name: keyof Ids) => (body: Body) => void (ids[name] = body.id);

const STEPS: readonly Step[] = [
  { name: 'CheckPak', verb: 'POST', path: () => '/auth/pak', status: 200, shape: 'AuthResponse', check: (body) => expect(body).toEqual({ admin: true, agent: null, generator: null, readonly: false }) },
  {
    name: 'CreateGenerator',
    verb: 'POST',
    path: () => '/generators',
    body: () => ({ name: 'team', description: 'a tenant' }),
    status: 201,
    shape: 'CreateGeneratorResponse',
    check: ({ generator, pak }: { generator: { id: string }; pak: string }) => {
      expectShape(generator, 'Generator');
      expect(pak).toMatch(/^brokkr_BR[1-9A-HJ-NP-Za-km-z]{6}_[1-9A-HJ-NP-Za-km-z]{24}$/);
      Object.assign(ids, { generator: generator.id, generatorPak: pak });
    },
  },
  { name: 'ListGenerators', verb: 'GET', path: () => '/generators', status: 200, shape: ['Generator'], check: (body: { name: string }[]) => expect(body.map(({ name }) => name)).not.toContain('__system__') },
  { name: 'GetGenerator', verb: 'GET', path: ({ generator }) => `/generators/${generator}`, as: 'generatorPak', status: 200, shape: 'Generator' },
  { name: 'UpdateGenerator', verb: 'PUT', path: ({ generator }) => `/generators/${generator}`, body: () => ({ description: null }), status: 200, shape: 'Generator', check: (body) => expect(body).toMatchObject({ name: 'team', description: null }) },
  { name: 'ListPaks', verb: 'GET', path: () => '/paks', status: 200, shape: ['PakSummary'] },
  {
    name: 'CreateAgent',
    verb: 'POST',
    path: () => '/agents',
    body: ({ generator }) => ({ name: 'edge', cluster_name: 'c1', generator_ids: [generator] }),
    status: 201,
    shape: 'CreateAgentResponse',
    check: ({ agent, initial_pak }: { agent: Body; initial_pak: string }) => {
      expectShape(agent, 'Agent');
      expect(agent).toMatchObject({ status: 'ACTIVE', presence: 'never_seen', last_heartbeat: null });
      Object.assign(ids, { agent: agent.id, agentPak: initial_pak });
    },
  },
  { name: 'ListAgents', verb: 'GET', path: () => '/agents', status: 200, shape: ['Agent'] },
  { name: 'ListAgents with a slash', verb: 'GET', path: () => '/agents/', as: 'generatorPak', status: 200, shape: ['Agent'] },
  { name: 'FindAgent', verb: 'GET', path: () => '/agents/?name=edge&cluster_name=c1', as: 'agentPak', status: 200, shape: 'Agent' },
  { name: 'GetAgent', verb: 'GET', path: ({ agent }) => `/agents/${agent}`, as: 'agentPak', status: 200, shape: 'Agent' },
  { name: 'UpdateAgent', verb: 'PUT', path: ({ agent }) => `/agents/${agent}`, body: () => ({ status: 'ACTIVE' }), status: 200, shape: 'Agent' },
  { name: 'AddAgentLabel', verb: 'POST', path: ({ agent }) => `/agents/${agent}/labels`, body: ({ agent }) => ({ agent_id: agent, label: 'prod' }), status: 201, shape: 'AgentLabel' },
  { name: 'ListAgentLabels', verb: 'GET', path: ({ agent }) => `/agents/${agent}/labels`, status: 200, shape: ['AgentLabel'] },
  { name: 'AddAgentAnnotation', verb: 'POST', path: ({ agent }) => `/agents/${agent}/annotations`, body: ({ agent }) => ({ agent_id: agent, key: 'region', value: 'eu' }), status: 201, shape: 'AgentAnnotation' },
  { name: 'ListAgentAnnotations', verb: 'GET', path: ({ agent }) => `/agents/${agent}/annotations`, status: 200, shape: ['AgentAnnotation'] },
  { name: 'CreateStack', verb: 'POST', path: () => '/stacks', body: ({ generator }) => ({ name: 'web', generator_id: generator }), as: 'generatorPak', status: 201, shape: 'Stack', check: keep('stack') },
  { name: 'ListStacks', verb: 'GET', path: ({ generator }) => `/stacks?pak_id=${generator}`, status: 200, shape: ['Stack'], check: (body) => expect(body).toHaveLength(1) },
  { name: 'GetStack', verb: 'GET', path: ({ stack }) => `/stacks/${stack}`, status: 200, shape: 'Stack', check: (body) => expect(body).toMatchObject({ description: null, deleted_at: null, generation: 0, deployment_object_id: null }) },
  { name: 'FindStack', verb: 'GET', path: () => '/stacks/by-name/web', as: 'generatorPak', status: 200, shape: 'Stack' },
  { name: 'UpdateStack', verb: 'PUT', path: ({ stack }) => `/stacks/${stack}`, body: () => ({ description: 'shop' }), status: 200, shape: 'Stack', check: (body) => expect(body).toMatchObject({ name: 'web', description: 'shop' }) },
  { name: 'AddStackLabel', verb: 'POST', path: ({ stack }) => `/stacks/${stack}/labels`, body: () => '"prod"', headers: { 'content-type': 'application/json' }, status: 201, shape: 'StackLabel' },
  { name: 'ListStackLabels', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/labels`, status: 200, shape: ['StackLabel'] },
  { name: 'AddStackAnnotation', verb: 'POST', path: ({ stack }) => `/stacks/${stack}/annotations`, body: ({ stack }) => ({ stack_id: stack, key: 'region', value: 'eu' }), status: 201, shape: 'StackAnnotation' },
  { name: 'ListStackAnnotations', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/annotations`, as: 'generatorPak', status: 200, shape: ['StackAnnotation'] },
  { name: 'CreateDeploymentObject from YAML', verb: 'POST', path: ({ stack }) => `/stacks/${stack}/deployment-objects`, body: () => YAML, headers: { 'content-type': 'application/x-yaml' }, status: 201, shape: 'DeploymentObject', check: keep('object') },
  { name: 'CreateDeploymentObject from JSON', verb: 'POST', path: ({ stack }) => `/stacks/${stack}/deployment-objects`, body: () => ({ yaml_content: `${YAML}data: {a: b}\n`, is_deletion_marker: false }), as: 'generatorPak', status: 201, shape: 'DeploymentObject', check: keep('object') },
  { name: 'ListDeploymentObjects', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/deployment-objects`, status: 200, shape: ['DeploymentObject'], check: (body: { revision: number }[]) => expect(body.map(({ revision }) => revision)).toEqual([2, 1]) },
  { name: 'GetDeploymentObject', verb: 'GET', path: ({ object }) => `/deployment-objects/${object}`, as: 'agentPak', status: 200, shape: 'DeploymentObject' },
  { name: 'Apply', verb: 'PUT', path: () => '/stacks/by-name/web/apply?label=prod', body: () => YAML, headers: { 'content-type': 'text/yaml' }, as: 'generatorPak', status: 200, shape: 'ApplyResponse', check: ({ deployment_object }: { deployment_object: Body }) => (expectShape(deployment_object, 'DeploymentObject'), keep('object')(deployment_object)) },
  { name: 'AddAgentTarget', verb: 'POST', path: ({ agent }) => `/agents/${agent}/targets`, body: ({ agent, stack }) => ({ agent_id: agent, stack_id: stack }), as: 'generatorPak', status: 201, shape: 'AgentTarget' },
  { name: 'ListAgentTargets', verb: 'GET', path: ({ agent }) => `/agents/${agent}/targets`, as: 'agentPak', status: 200, shape: ['AgentTarget'] },
  { name: 'ExplainTargets', verb: 'GET', path: ({ agent }) => `/targets/explain?agent_id=${agent}`, as: 'generatorPak', status: 200, shape: ['TargetExplanation'] },
  { name: 'SendHeartbeat', verb: 'POST', path: ({ agent }) => `/agents/${agent}/heartbeat`, body: () => ({ k8s_reachable: true, k8s_api_latency_ms: 12 }), as: 'agentPak', status: 204 },
  { name: 'SendHeartbeat without a body', verb: 'POST', path: ({ agent }) => `/agents/${agent}/heartbeat`, as: 'agentPak', status: 204 },
  { name: 'GetTargetState', verb: 'GET', path: ({ agent }) => `/agents/${agent}/target-state?mode=full`, as: 'agentPak', status: 200, shape: ['DeploymentObject'], check: (body) => expect(body).toEqual([expect.objectContaining({ id: ids.object, yaml_content: YAML })]) },
  { name: 'ListAgentStacks', verb: 'GET', path: ({ agent }) => `/agents/${agent}/stacks`, as: 'agentPak', status: 200, shape: ['Stack'] },
  { name: 'CreateAgentEvent', verb: 'POST', path: ({ agent }) => `/agents/${agent}/events`, body: ({ agent, object }) => ({ agent_id: agent, deployment_object_id: object, event_type: 'APPLY', status: 'SUCCESS', message: null }), as: 'agentPak', status: 201, shape: 'AgentEvent', check: keep('event') },
  { name: 'GetTargetState after the report', verb: 'GET', path: ({ agent }) => `/agents/${agent}/target-state`, as: 'agentPak', status: 200, shape: ['DeploymentObject'], check: (body) => expect(body).toEqual([]) },
  { name: 'ListEventsOfAgent', verb: 'GET', path: ({ agent }) => `/agents/${agent}/events`, as: 'agentPak', status: 200, shape: ['AgentEvent'] },
  { name: 'ListAgentEvents', verb: 'GET', path: ({ generator }) => `/agent-events?pak_id=${generator}`, status: 200, shape: ['AgentEvent'], check: (body) => expect(body).toHaveLength(1) },
  { name: 'GetAgentEvent', verb: 'GET', path: ({ event }) => `/agent-events/${event}`, status: 200, shape: 'AgentEvent', check: (body) => expect(body).toMatchObject({ status: 'SUCCESS', message: null }) },
  { name: 'ReportHealth', verb: 'PATCH', path: ({ agent }) => `/agents/${agent}/health-status`, body: ({ object }) => ({ deployment_objects: [{ id: object, status: 'degraded', checked_at: '2026-01-02T03:04:05Z', summary: { pods_ready: 1, pods_total: 2, conditions: ['slow'] } }] }), as: 'agentPak', status: 200 },
  { name: 'GetDeploymentObjectHealth', verb: 'GET', path: ({ object }) => `/deployment-objects/${object}/health`, status: 200, shape: 'DeploymentHealthResponse', check: ({ health_records }: { health_records: unknown[] }) => health_records.forEach((record) => void expectShape(record, 'DeploymentHealth')) },
  { name: 'GetStackHealth', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/health`, status: 200, shape: 'StackHealthResponse', check: (body) => expect(body).toMatchObject({ overall_status: 'degraded', deployment_objects: [{ degraded_agents: 1, failing_agents: 0, healthy_agents: 0, status: 'degraded' }] }) },
  { name: 'GetStackStatus', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/status`, status: 200, shape: 'StackStatus' },
  { name: 'GetStackHistory', verb: 'GET', path: ({ stack }) => `/stacks/${stack}/history`, status: 200, shape: ['HistoryEntry'], check: (body) => expect(body).toHaveLength(3) },
  { name: 'RegisterAgent', verb: 'POST', path: ({ generator }) => `/generators/${generator}/register`, body: ({ agent }) => ({ agent_id: agent }), status: 409 },
  { name: 'ListRegistrations', verb: 'GET', path: ({ agent }) => `/agents/${agent}/registrations`, as: 'agentPak', status: 200, shape: ['AgentGeneratorRegistration'] },
  { name: 'ListRegisteredAgents', verb: 'GET', path: ({ generator }) => `/generators/${generator}/registered-agents`, as: 'generatorPak', status: 200, shape: ['AgentGeneratorRegistration'] },
  { name: 'DeregisterAgent', verb: 'DELETE', path: ({ generator }) => `/generators/${generator}/register`, body: ({ agent }) => ({ agent_id: agent }), status: 204 },
  { name: 'RegisterAgent by the agent', verb: 'POST', path: ({ generator }) => `/generators/${generator}/register`, as: 'agentPak', status: 201, shape: 'AgentGeneratorRegistration' },
  { name: 'CreateKey', verb: 'POST', path: () => '/keys', body: ({ agent }) => ({ role: 'agent', agent_id: agent, name: 'second', expires_at: '2999-01-01T00:00:00Z' }), status: 201, shape: 'CreateKeyResponse', check: ({ key }: { key: Body }) => (expectShape(key, 'Key'), keep('key')(key)) },
  { name: 'ListKeys', verb: 'GET', path: () => '/keys', status: 200, shape: ['Key'] },
  { name: 'RevokeKey', verb: 'DELETE', path: ({ key }) => `/keys/${key}`, status: 204 },
  { name: 'RotateAgentPak', verb: 'POST', path: ({ agent }) => `/agents/${agent}/rotate-pak`, as: 'agentPak', status: 200, shape: 'AgentPak' },
  { name: 'RotateGeneratorPak', verb: 'POST', path: ({ generator }) => `/generators/${generator}/rotate-pak`, as: 'generatorPak', status: 201, shape: 'CreateGeneratorResponse' },
  { name: 'ListAuditLogs', verb: 'GET', path: () => '/admin/audit-logs?action=agent.*&limit=1', status: 200, shape: 'AuditLogListResponse', check: ({ logs, count, limit }: { logs: unknown[]; count: number; limit: number }) => (expect({ count, limit }).toEqual({ count: 1, limit: 1 }), expectShape(logs[0], 'AuditLogEntry')) },
  { name: 'ListConnections', verb: 'GET', path: () => '/admin/ws/connections', status: 200, shape: 'Connections' },
  { name: 'ConfirmHistory', verb: 'POST', path: () => '/admin/history/confirm', body: () => ({}), status: 200, shape: 'Incarnation' },
  { name: 'RotateAdminPak in a dry run', verb: 'POST', path: () => '/admin/rotate-pak?dry_run=true', status: 201, shape: 'Pak' },
  { name: 'RemoveAgentTarget', verb: 'DELETE', path: ({ agent, stack }) => `/agents/${agent}/targets/${stack}`, status: 204 },
  { name: 'RemoveAgentLabel', verb: 'DELETE', path: ({ agent }) => `/agents/${agent}/labels/prod`, status: 204 },
  { name: 'RemoveAgentAnnotation', verb: 'DELETE', path: ({ agent }) => `/agents/${agent}/annotations/region`, status: 204 },
  { name: 'RemoveStackLabel', verb: 'DELETE', path: ({ stack }) => `/stacks/${stack}/labels/prod`, status: 204 },
  { name: 'RemoveStackAnnotation', verb: 'DELETE', path: ({ stack }) => `/stacks/${stack}/annotations/region`, status: 204 },
  { name: 'DeleteStack', verb: 'DELETE', path: ({ stack }) => `/stacks/${stack}`, status: 204 },
  { name: 'DeleteGenerator', verb: 'DELETE', path: ({ generator }) => `/generators/${generator}`, status: 204 },
  { name: 'DeleteAgent', verb: 'DELETE', path: ({ agent }) => `/agents/${agent}`, status: 204 },
];

describe('the REST contract', () => {
  it.each(STEPS)('$name: $verb answers $status', async ({ verb, path, body, headers = {}, as, status, shape, check }) => {
    const target = `/api/v1${path(ids)}`;
    const answer = await broker.api<never>(verb, target, body?.(ids), { ...headers, ...(as && { authorization: ids[as] }) });
    expect(answer.status, JSON.stringify(answer.body)).toBe(status);
    if (answer.status < 300) called.add(routeOf(verb, target));
    if (answer.status < 300 && shape === undefined) expect(answer.body).toBeUndefined();
    if (typeof shape === 'string') expectShape(answer.body, shape);
    else if (shape) {
      expect(answer.body).toBeInstanceOf(Array);
      for (const item of answer.body as unknown[]) expectShape(item, shape[0]);
    }
    check?.(answer.body, ids);
  });

  it('was tested whole', () => {
    const routes = broker.broker.server.routes.filter(({ method }) => method.parent.name !== 'AgentSync');
    expect(routes.map(({ method }) => method.name).filter((name) => !called.has(name))).toEqual([]);
  });
});

/** Name of the method that a path leads to. */
function routeOf(verb: string, target: string): string {
  const [path = '', query = ''] = target.split('?');
  const fits = broker.broker.server.routes.filter((route) => {
    const pattern = route.template.replace(/\/$/, '').replace(/\{[^}]+\}/g, '[^/]+');
    return route.verb === verb && new RegExp(`^${pattern}$`).test(path.replace(/\/$/, ''));
  });
  const literal = fits.find((route) => !route.template.includes('{'));
  const wanted = fits.find((route) => route.whenQuery.some((name) => query.includes(`${name}=`)));
  const plain = fits.filter((route) => route.whenQuery.length === 0);
  return (wanted ?? (literal && plain.includes(literal) ? literal : plain[0]))?.method.name ?? '';
}
