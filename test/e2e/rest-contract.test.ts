import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { expectShape, type ShapeName } from './shapes.ts';

// C-005, C-020, C-026, C-028: every REST route of the broker, in the order in which somebody would use them.
// Columns: caller, verb and path, body (raw YAML when it does not begin like JSON), status, schema of the answer ([…] is a
// bare array, [str] one of texts, - an empty body) with fields it must have, and what of it is kept for later lines.
const TABLE = `
admin     | POST /auth/pak                                  |                                                | 200 | AuthResponse {"admin":true,"agent":null,"generator":null,"readonly":false} |
admin     | POST /generators                                | {"name":"team","description":"a tenant"}       | 201 | CreateGeneratorResponse | generator=generator.id generatorPak=pak
admin     | GET /generators                                 |                                                | 200 | [Generator] |
generator | GET /generators/{generator}                     |                                                | 200 | Generator {"description":"a tenant","last_active_at":null,"is_system":false} |
generator | PUT /generators/{generator}                     | {"description":null}                           | 200 | Generator {"name":"team","description":null} |
admin     | GET /paks                                       |                                                | 200 | [PakSummary] |
admin     | POST /agents                                    | {"name":"edge","cluster_name":"c1","generator_ids":["{generator}"]} | 201 | CreateAgentResponse | agent=agent.id agentPak=initial_pak
admin     | GET /agents                                     |                                                | 200 | [Agent] |
generator | GET /agents/                                    |                                                | 200 | [Agent] |
agent     | GET /agents/?name=edge&cluster_name=c1          |                                                | 200 | Agent {"status":"ACTIVE"} |
agent     | GET /agents/{agent}                             |                                                | 200 | Agent {"presence":"never_seen","last_heartbeat":null,"k8s_reachable":null} |
admin     | PUT /agents/{agent}                             | {"status":"INACTIVE"}                          | 200 | Agent {"status":"INACTIVE"} |
admin     | PUT /agents/{agent}                             | {"status":"ACTIVE"}                            | 200 | Agent {"status":"ACTIVE"} |
admin     | POST /agents/{agent}/labels                     | {"agent_id":"{agent}","label":"prod"}          | 201 | AgentLabel |
agent     | GET /agents/{agent}/labels                      |                                                | 200 | [AgentLabel] {"label":"prod"} |
admin     | POST /agents/{agent}/annotations                | {"agent_id":"{agent}","key":"region","value":"eu"} | 201 | AgentAnnotation |
agent     | GET /agents/{agent}/annotations                 |                                                | 200 | [AgentAnnotation] {"key":"region"} |
generator | POST /stacks                                    | {"name":"web","generator_id":"{generator}"}    | 201 | Stack {"generation":0,"description":null,"deployment_object_id":null,"deleted_at":null} | stack=id
admin     | GET /stacks?pak_id={generator}                  |                                                | 200 | [Stack] {"name":"web"} |
generator | GET /stacks/{stack}                             |                                                | 200 | Stack |
generator | GET /stacks/by-name/web                         |                                                | 200 | Stack {"id":"{stack}"} |
generator | PUT /stacks/{stack}                             | {"description":"shop"}                         | 200 | Stack {"name":"web","description":"shop"} |
generator | POST /stacks/{stack}/labels                     | "prod"                                         | 201 | StackLabel {"label":"prod"} |
generator | GET /stacks/{stack}/labels                      |                                                | 200 | [StackLabel] |
generator | POST /stacks/{stack}/annotations                | {"stack_id":"{stack}","key":"region","value":"eu"} | 201 | StackAnnotation |
generator | GET /stacks/{stack}/annotations                 |                                                | 200 | [StackAnnotation] |
generator | POST /stacks/{stack}/deployment-objects         | apiVersion: v1⏎kind: A⏎metadata: {name: a}⏎    | 201 | DeploymentObject {"revision":1,"is_deletion_marker":false,"object_count":1} |
generator | POST /stacks/{stack}/deployment-objects         | {"yaml_content":"apiVersion: v1\\nkind: B\\nmetadata: {name: a}\\n"} | 201 | DeploymentObject {"revision":2} |
generator | POST /stacks/{stack}/deployment-objects?deletion_marker=true | # gone⏎                           | 201 | DeploymentObject {"revision":3,"is_deletion_marker":true} |
generator | PUT /stacks/by-name/web/apply?label=prod        | apiVersion: v1⏎kind: A⏎metadata: {name: a}⏎    | 200 | ApplyResponse {"result":"updated","targeted_agents":1} | object=deployment_object.id
generator | GET /stacks/{stack}/deployment-objects          |                                                | 200 | [DeploymentObject] {"revision":4} |
agent     | GET /deployment-objects/{object}                |                                                | 200 | DeploymentObject {"revision":4,"yaml_content":"apiVersion: v1\\nkind: A\\nmetadata: {name: a}\\n"} |
generator | POST /agents/{agent}/targets                    | {"agent_id":"{agent}","stack_id":"{stack}"}    | 201 | AgentTarget |
agent     | GET /agents/{agent}/targets                     |                                                | 200 | [AgentTarget] {"stack_id":"{stack}"} |
generator | GET /targets/explain?agent_id={agent}           |                                                | 200 | [TargetExplanation] {"assigned":true} |
agent     | POST /agents/{agent}/heartbeat                  | {"k8s_reachable":true,"k8s_api_latency_ms":12} | 204 | - |
agent     | POST /agents/{agent}/heartbeat                  |                                                | 204 | - |
agent     | GET /agents/{agent}                             |                                                | 200 | Agent {"k8s_reachable":true,"k8s_api_latency_ms":12} |
agent     | GET /agents/{agent}/target-state                |                                                | 200 | [DeploymentObject] {"id":"{object}"} |
agent     | GET /agents/{agent}/stacks                      |                                                | 200 | [Stack] {"id":"{stack}"} |
agent     | POST /agents/{agent}/events                     | {"agent_id":"{agent}","deployment_object_id":"{object}","event_type":"APPLY","status":"FAILURE","message":null} | 201 | AgentEvent {"status":"FAILURE","message":null} | event=id
agent     | GET /agents/{agent}/target-state                |                                                | 200 | [] |
agent     | GET /agents/{agent}/target-state?mode=full      |                                                | 200 | [DeploymentObject] |
agent     | GET /agents/{agent}/events                      |                                                | 200 | [AgentEvent] |
admin     | GET /agent-events?pak_id={generator}            |                                                | 200 | [AgentEvent] {"id":"{event}"} |
admin     | GET /agent-events/{event}                       |                                                | 200 | AgentEvent |
agent     | PATCH /agents/{agent}/health-status             | {"deployment_objects":[{"id":"{object}","status":"degraded","checked_at":"2026-01-02T03:04:05Z"}]} | 200 | - |
admin     | GET /deployment-objects/{object}/health         |                                                | 200 | DeploymentHealthResponse {"overall_status":"degraded","deployment_object_id":"{object}"} |
admin     | GET /stacks/{stack}/health                      |                                                | 200 | StackHealthResponse {"overall_status":"degraded","stack_id":"{stack}"} |
generator | GET /stacks/{stack}/status                      |                                                | 200 | StackStatus |
generator | GET /stacks/{stack}/explain?kind=a                |                                                | 200 | StackExplanation {"next_page_token":""} |
generator | GET /stacks/{stack}/history                     |                                                | 200 | [HistoryEntry] {"generation":4} |
generator | POST /stacks/{stack}/retry                      |                                                | 200 | Stack {"generation":5,"deployment_object_id":"{object}"} |
agent     | GET /agents/{agent}/target-state                |                                                | 200 | [DeploymentObject] {"id":"{object}"} |
generator | POST /stacks/{stack}/rollback                   | {"generation":4}                               | 200 | RollbackStackResponse {"from_generation":4} |
generator | POST /stacks/{stack}/pause                      | {"agent_id":"{agent}"}                         | 200 | Stack {"generation":6} |
generator | POST /stacks/{stack}/resume                     | {"agent_id":"{agent}"}                         | 200 | Stack {"generation":6} |
agent     | GET /agents/{agent}/registrations               |                                                | 200 | [AgentGeneratorRegistration] |
generator | GET /generators/{generator}/registered-agents   |                                                | 200 | [AgentGeneratorRegistration] {"agent_id":"{agent}"} |
generator | DELETE /agents/{agent}/targets/{stack}          |                                                | 204 | - |
admin     | POST /agents/{agent}/targets                    | {"agent_id":"{agent}","stack_id":"{stack}"}    | 201 | AgentTarget |
admin     | DELETE /generators/{generator}/register         | {"agent_id":"{agent}"}                         | 204 | - |
agent     | GET /agents/{agent}/targets                     |                                                | 200 | [] |
agent     | POST /generators/{generator}/register           |                                                | 201 | AgentGeneratorRegistration |
admin     | POST /keys                                      | {"role":"agent","agent_id":"{agent}","name":"second","expires_at":"2999-01-01T00:00:00Z"} | 201 | CreateKeyResponse | key=key.id
admin     | GET /keys                                       |                                                | 200 | [Key] {"name":"second","role":"agent","last_used_at":null,"revoked_at":null} |
admin     | DELETE /keys/{key}                              |                                                | 204 | - |
agent     | POST /agents/{agent}/rotate-pak                 |                                                | 200 | AgentPak |
generator | POST /generators/{generator}/rotate-pak         |                                                | 201 | CreateGeneratorResponse |
admin     | GET /admin/audit-logs?action=agent.*&limit=1    |                                                | 200 | AuditLogListResponse {"count":1,"limit":1,"offset":0} |
admin     | GET /admin/ws/connections                       |                                                | 200 | Connections {"connected_agents":0,"connections":[]} |
admin     | POST /admin/history/confirm                     | {}                                             | 200 | Incarnation |
admin     | POST /admin/rotate-pak?dry_run=true             |                                                | 201 | Pak {"pak":""} |
admin     | DELETE /agents/{agent}/labels/prod              |                                                | 204 | - |
admin     | DELETE /agents/{agent}/annotations/region       |                                                | 204 | - |
admin     | DELETE /stacks/{stack}/labels/prod              |                                                | 204 | - |
admin     | DELETE /stacks/{stack}/annotations/region       |                                                | 204 | - |
admin     | DELETE /stacks/{stack}                          |                                                | 204 | - |
admin     | DELETE /generators/{generator}                  |                                                | 204 | - |
admin     | POST /webhooks                                  | {"name":"chat","url":"http://127.0.0.1:9/","event_types":["agent.*"]} | 201 | Webhook {"enabled":true,"filters":null,"has_auth_header":false,"max_retries":5,"timeout_seconds":30} | webhook=id
admin     | GET /webhooks                                   |                                                | 200 | [Webhook] {"has_url":true,"secret":null} |
admin     | GET /webhooks/{webhook}                         |                                                | 200 | Webhook {"name":"chat"} |
admin     | PUT /webhooks/{webhook}                         | {"filters":{"stack_id":"{stack}"},"enabled":false} | 200 | Webhook {"enabled":false,"filters":{"agent_id":null,"stack_id":"{stack}","labels":[]}} |
admin     | PUT /webhooks/{webhook}                         | {"filters":{},"enabled":true}                  | 200 | Webhook {"enabled":true,"filters":null} |
admin     | PUT /webhooks/{webhook}                         | {"target_labels":["site"]}                      | 200 | Webhook {"target_labels":["site"]} |
admin     | PUT /webhooks/{webhook}                         | {"clear_target_labels":true}                   | 200 | Webhook {"target_labels":[]} |
admin     | GET /webhooks/event-types                       |                                                | 200 | [str] |
admin     | DELETE /agents/{agent}                          |                                                | 204 | - |
admin     | GET /webhooks/{webhook}/deliveries              |                                                | 200 | [WebhookDelivery] {"event_type":"agent.deregistered"} |
admin     | GET /webhook-deliveries?limit=10                |                                                | 200 | [WebhookDelivery] {"event_type":"agent.deregistered"} | delivery=0.id
admin     | POST /webhook-deliveries/{delivery}/replay      |                                                | 200 | WebhookDelivery {"id":"{delivery}"} |
admin     | POST /webhooks/{webhook}/rotate-secret          | {"grace_seconds":60}                           | 200 | Webhook |
admin     | POST /webhooks/{webhook}/test                   |                                                | 400 | Error {"code":"webhook_test_failed","details":{"kind":"blocked","status_code":null}} |
admin     | DELETE /webhooks/{webhook}                      |                                                | 204 | - |
`;

interface Step {
  readonly name: string;
  readonly caller: string;
  readonly verb: string;
  readonly path: string;
  readonly body: string;
  readonly status: number;
  readonly answer: string;
  readonly keeps: string;
}

const STEPS: readonly Step[] = TABLE.trim()
  .split('\n')
  .map((line) => {
    const [caller = '', request = '', body = '', status = '', answer = '', keeps = ''] = line
      .split('|')
      .map((cell) => cell.trim());
    const [verb = '', path = ''] = request.split(' ');
    return { name: request, caller, verb, path, body: body.replaceAll('⏎', '\n'), status: Number(status), answer, keeps };
  });

let broker: InProcessBroker;
const kept: Record<string, string> = {};
const called = new Set<string>();
const fill = (text: string) => text.replace(/\{([a-zA-Z]+)\}/g, (whole, name: string) => kept[name] ?? whole);

beforeAll(async () => {
  broker = await startInProcessBroker();
});

describe('the REST contract', () => {
  it.each(STEPS)('$caller: $name answers $status with $answer', async (step) => {
    const body = fill(step.body);
    const type = /^(["{]|$)/.test(body) ? 'application/json' : 'application/yaml';
    const pak = step.caller === 'admin' ? broker.adminPak : kept[`${step.caller}Pak`];
    const { status, body: answer } = await broker.api<unknown>(step.verb, `/api/v1${fill(step.path)}`, body || undefined, {
      'content-type': type,
      authorization: pak ?? '',
    });
    expect(status, JSON.stringify(answer)).toBe(step.status);
    called.add(methodOf(step.verb, fill(step.path)));
    checkAnswer(answer, fill(step.answer));
    for (const pair of step.keeps.split(' ').filter((item) => item !== '')) {
      const [name = '', path = ''] = pair.split('=');
      kept[name] = path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], answer) as string;
    }
  });

  // N-040: beside the API on the same port, without a key
  it('has three routes for probes and scrapers', async () => {
    const read = async (path: string) => {
      const response = await fetch(`${broker.url}${path}`);
      return [response.status, await response.text()] as const;
    };
    expect(await read('/healthz')).toEqual([200, 'OK']);
    expect(await read('/readyz')).toEqual([200, 'Ready']);
    expect(await read('/metrics')).toEqual([200, expect.stringContaining('brokkr_database_pool_connections{state="idle"}')]);
  });

  it('has no route that was not called', () => {
    const routes = broker.broker.server.routes.filter(({ method }) => method.parent.name !== 'AgentSync');
    expect(routes.map(({ method }) => method.name).filter((name) => !called.has(name))).toEqual([]);
  });
});

/** `Name {fields}`, `[Name] {fields of the first}`, `[]` or `-`. */
function checkAnswer(answer: unknown, wanted: string): void {
  if (wanted === '-') {
    expect(answer).toBeUndefined();
    return;
  }
  const [, list, name = '', fields] = /^(\[?)(\w*)\]?\s*(\{.*\})?$/.exec(wanted) ?? [];
  const items = list ? (answer as unknown[]) : [answer];
  if (list) expect(answer).toBeInstanceOf(Array);
  expect(items.length > 0).toBe(name !== '');
  for (const item of items) {
    if (name === 'str') expect(item).toBeTypeOf('string');
    else expectShape(item, name as ShapeName);
  }
  if (fields) expect(items[0]).toMatchObject(JSON.parse(fields));
}

/** Name of the method behind a path. */
function methodOf(verb: string, target: string): string {
  const { pathname, searchParams } = new URL(`/api/v1${target}`, broker.url);
  const fits = broker.broker.server.routes.filter((route) => {
    const pattern = route.template.replace(/\/$/, '').replace(/\{[^}]+\}/g, '[^/]+');
    return route.verb === verb && new RegExp(`^${pattern}$`).test(pathname.replace(/\/$/, ''));
  });
  const asked = fits.find((route) => route.whenQuery.some((name) => searchParams.has(name)));
  return (
    (asked ?? fits.find((route) => route.whenQuery.length === 0 && !route.template.includes('{')) ?? fits[0])?.method.name ?? ''
  );
}
