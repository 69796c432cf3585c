import { gzipSync } from 'node:zlib';
import { type DescMessage, type JsonValue, toJson } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AGENT_ID, STACK_ID, startTestServer, TEST_KEY, type TestServer } from '../../test/broker-http.ts';

let port: TestServer;
beforeAll(async () => {
  port = await startTestServer();
});
afterAll(() => port.stop());

async function call(method: string, path: string, body?: string | Uint8Array, headers: Record<string, string> = {}) {
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  const response = await fetch(`http://${port.address}/api/v1${path}`, {
    method,
    ...(body !== undefined && { body: body as string }),
    headers: { authorization: TEST_KEY, ...type, ...headers },
  });
  const text = await response.text();
  const json: unknown = text && response.headers.get('content-type') === 'application/json' ? JSON.parse(text) : undefined;
  return { status: response.status, headers: response.headers, text, json: json as Record<string, JsonValue> };
}

/** The last request that reached a handler, as proto JSON. */
function last(): { method: string; request: JsonValue } {
  const { method, message } = port.seen.at(-1) as TestServer['seen'][number];
  const schema = port.server.routes.find((route) => route.method.name === method)?.method.input as DescMessage;
  return { method, request: toJson(schema, message, { useProtoFieldName: true }) };
}

describe('a REST request', () => {
  it.each([
    ['GET', '/stacks/', undefined, 'ListStacks', {}],
    ['GET', `/stacks?pak_id=${AGENT_ID}&limit=5`, undefined, 'ListStacks', { generator_id: AGENT_ID, limit: 5 }],
    ['GET', '/stacks/by-name/a%2Fb', undefined, 'FindStack', { name: 'a/b' }],
    ['GET', '/agents?name=n&cluster_name=c', undefined, 'FindAgent', { name: 'n', cluster_name: 'c' }],
    ['GET', '/agents/?name=n&cluster_name=c', undefined, 'FindAgent', { name: 'n', cluster_name: 'c' }],
    ['GET', '/agents/', undefined, 'ListAgents', {}],
    ['PUT', `/agents/${AGENT_ID}`, '{"status":"INACTIVE"}', 'UpdateAgent', { id: AGENT_ID, status: 'AGENT_STATUS_INACTIVE' }],
    [
      'POST',
      `/agents/${AGENT_ID}/labels`,
      `{"agent_id":"${AGENT_ID}","label":"x"}`,
      'AddAgentLabel',
      { agent_id: AGENT_ID, label: 'x' },
    ],
    ['POST', `/stacks/${STACK_ID}/labels`, '"prod"', 'AddStackLabel', { stack_id: STACK_ID, label: 'prod' }],
    ['POST', `/agents/${AGENT_ID}/heartbeat`, undefined, 'SendHeartbeat', { agent_id: AGENT_ID }],
    ['POST', `/stacks?dry_run=true`, '{"name":"x"}', 'CreateStack', { name: 'x', dry_run: true }],
    [
      'DELETE',
      `/generators/${AGENT_ID}/register`,
      `{"agent_id":"${AGENT_ID}"}`,
      'DeregisterAgent',
      { id: AGENT_ID, agent_id: AGENT_ID },
    ],
    [
      'POST',
      '/stacks',
      '{"name":"x","options":{"deletion_policy":"orphan","approve_deletes":3}}',
      'CreateStack',
      { name: 'x', options: { deletion_policy: 'DELETION_POLICY_ORPHAN', approve_deletes: 3 } },
    ],
    [
      'PUT',
      '/stacks/by-name/s/apply?label=a&label=b',
      '{"validation":"none"}',
      'Apply',
      { name: 's', label: ['a', 'b'], validation: 'VALIDATION_NONE' },
    ],
    [
      'PUT',
      `/stacks/${STACK_ID}`,
      `{"id":"${STACK_ID}","description":null,"name":"n"}`,
      'UpdateStack',
      { id: STACK_ID, stack: { id: STACK_ID, name: 'n' }, update_mask: 'id,description,name' },
    ],
  ])('%s %s with body %s reaches %s', async (verb, path, body, method, request) => {
    const answer = await call(verb, path, body);
    expect(answer.status, answer.text).toBeLessThan(300);
    expect(last()).toEqual({ method, request });
  });

  it('takes the text of a YAML body as it is, beside query parameters', async () => {
    const text = '\ufeffa: ü\n---\nb: 2\n';
    for (const type of ['application/yaml', 'text/yaml; charset=utf-8', 'application/x-yaml']) {
      await call('POST', `/stacks/${STACK_ID}/deployment-objects?deletion_marker=true`, text, { 'content-type': type });
      expect(last().request).toEqual({ stack_id: STACK_ID, yaml_content: text, is_deletion_marker: true });
    }
  });

  it('takes a compressed body', async () => {
    await call('POST', '/stacks', gzipSync('{"name":"packed"}'), { 'content-encoding': 'gzip' });
    expect(last().request).toEqual({ name: 'packed' });
  });

  it('hands the headers that handlers read on, and the principal', async () => {
    await call('GET', `/stacks/${STACK_ID}`, undefined, { 'if-match': '"3"', traceparent: 'tp', 'idempotency-key': 'k' });
    const seen = port.seen.at(-1);
    expect(seen?.principal).toBe('tester');
    expect(Object.fromEntries(seen?.headers ?? [])).toMatchObject({
      'if-match': '"3"',
      traceparent: 'tp',
      'idempotency-key': 'k',
    });
  });
});

describe('a mistake in a REST request', () => {
  it.each([
    ['GET', '/nothing', undefined, {}, 404, 'not_found'],
    ['GET', `/stacks/${STACK_ID}/nothing`, undefined, {}, 404, 'not_found'],
    ['PATCH', `/stacks/${STACK_ID}`, '{}', {}, 405, 'method_not_allowed'],
    ['GET', '/stacks', undefined, { authorization: 'wrong' }, 401, 'unauthorized'],
    ['POST', '/stacks', '{"name":', { authorization: 'wrong' }, 401, 'unauthorized'],
    ['POST', '/stacks', '{"name":\n"x",}', {}, 400, 'invalid_request_body'],
    ['POST', '/stacks', Buffer.from('{"name":"\xff"}', 'latin1'), {}, 400, 'invalid_request_body'],
    ['POST', '/stacks', 'name=x', { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'unsupported_content_type'],
    ['POST', '/stacks', 'name: x', { 'content-type': 'application/yaml' }, 415, 'unsupported_content_type'],
    ['POST', '/stacks', '{"name":"x"}', { 'content-encoding': 'lzma' }, 415, 'unsupported_content_type'],
    ['POST', '/stacks', '{"name":"x","nme":1}', {}, 400, 'invalid_request'],
    ['POST', '/stacks', '{"name":5}', {}, 400, 'invalid_request'],
    ['POST', '/stacks', '[]', {}, 400, 'invalid_request'],
    ['POST', '/stacks', '{"name":""}', {}, 400, 'invalid_stack'],
    ['POST', '/stacks', '{"name":"taken"}', {}, 409, 'unique_violation'],
    ['POST', '/stacks', '{"name":"bug"}', {}, 500, 'internal_error'],
    ['GET', '/stacks?limit=many', undefined, {}, 400, 'invalid_request'],
    ['GET', '/stacks?limit=1&limit=2', undefined, {}, 400, 'invalid_request'],
    ['GET', '/stacks?unknown=1', undefined, {}, 400, 'invalid_request'],
    ['GET', '/agents?name=n', undefined, {}, 400, 'name_and_cluster_required'],
    ['PUT', `/agents/${AGENT_ID}`, '{"status":"SLEEPING"}', {}, 400, 'invalid_request'],
    ['PUT', `/agents/${AGENT_ID}`, `{"id":"${STACK_ID}"}`, {}, 400, 'agent_id_mismatch'],
    ['PUT', `/stacks/${STACK_ID}`, `{"id":"${AGENT_ID}"}`, {}, 400, 'stack_id_mismatch'],
    ['POST', `/agents/${AGENT_ID}/labels`, `{"agent_id":"${STACK_ID}","label":"x"}`, {}, 400, 'agent_id_mismatch'],
    ['POST', `/stacks/${STACK_ID}/annotations`, `{"stack_id":"${AGENT_ID}","key":"k","value":"v"}`, {}, 400, 'stack_id_mismatch'],
    ['POST', `/stacks/${STACK_ID}/labels`, '"with space"', {}, 400, 'invalid_label'],
    ['POST', `/stacks/${STACK_ID}/labels`, '{"label":"x"}', {}, 400, 'invalid_request'],
    ['GET', `/stacks/${STACK_ID}`, undefined, { accept: 'image/png' }, 406, 'not_acceptable'],
    ['GET', '/keys', undefined, {}, 501, 'unimplemented'],
  ])('%s %s %s %s is answered %i %s', async (verb, path, body, headers, status, code) => {
    const answer = await call(verb, path, body, headers as Record<string, string>);
    expect({ status: answer.status, code: answer.json.code }, answer.text).toEqual({ status, code });
    expect(Object.keys(answer.json).every((key) => ['code', 'message', 'details'].includes(key))).toBe(true);
    expect(answer.text).not.toContain('internals');
  });

  it('names the place: line, field, parameter, limit, allowed methods', async () => {
    expect((await call('POST', '/stacks', '{"name":\n"x",}')).json.details).toEqual({ line: 2, column: 5 });
    expect((await call('POST', '/stacks', '{"name":"x","options":{"adoptoin":"adopt"}}')).json.details).toEqual({
      field: 'options.adoptoin',
    });
    expect((await call('GET', '/stacks?unknown=1')).json.details).toEqual({ parameter: 'unknown' });
    expect((await call('POST', '/stacks', '{"name":""}')).json.details).toMatchObject({
      violations: [{ field: 'name' }, { field: 'name' }],
    });
    expect((await call('PATCH', '/stacks', '{}')).headers.get('allow')).toBe('GET, POST');
    expect((await call('GET', '/stacks', undefined, { authorization: '' })).headers.get('www-authenticate')).toBe(
      'Bearer realm="brokkr"',
    );
  });

  it('leaves details out when there are none', async () => {
    expect(Object.keys((await call('GET', '/nothing')).json)).toEqual(['code', 'message']);
  });

  it('ignores fields it does not know in the protocol with agents', async () => {
    expect((await call('POST', '/agent-sync/poll', '{"from_the_future":1}')).status).toBe(200);
  });
});

describe('a REST answer', () => {
  it('is a bare array for lists, with the next page in the Link header', async () => {
    const { json, headers } = await call('GET', '/stacks?limit=1&label=a');
    expect(json).toHaveLength(1);
    expect(headers.get('link')).toBe('</api/v1/stacks?limit=1&label=a&page_token=next+one>; rel="next"');
    expect((await call('GET', '/stacks')).headers.get('link')).toBeNull();
  });

  it('has null for what is unset, numbers for 64-bit integers, times with Z and enums as clients know them', async () => {
    expect((await call('GET', `/stacks/${STACK_ID}`)).json).toEqual({
      id: STACK_ID,
      name: 'hello',
      description: null,
      generator_id: AGENT_ID,
      created_at: '2026-01-02T03:04:05.678Z',
      updated_at: '2026-01-02T03:04:05.678Z',
      deleted_at: null,
      generation: 7,
      deployment_object_id: null,
      options: null,
      selector: null,
    });
    const created = await call('POST', '/agents', '{"name":"a","cluster_name":"c"}');
    expect(created.status).toBe(201);
    expect(created.json).toMatchObject({
      initial_pak: 'shown-once',
      agent: { status: 'ACTIVE', acceptance: null, k8s_reachable: null },
    });
    expect((await call('GET', `/deployment-objects/${STACK_ID}`)).json).toMatchObject({
      sequence_id: '9007199254740993',
      revision: 2,
    });
  });

  it('has no body where the contract says so', async () => {
    const { status, text, headers } = await call('DELETE', `/stacks/${STACK_ID}`);
    expect({ status, text, type: headers.get('content-type') }).toEqual({ status: 204, text: '', type: null });
  });

  it('is the text itself for clients that accept YAML', async () => {
    const yaml = await call('GET', `/deployment-objects/${STACK_ID}`, undefined, { accept: 'application/yaml' });
    expect([yaml.headers.get('content-type'), yaml.text]).toEqual(['application/yaml', 'a: 1\n']);
  });

  it('carries headers of the handler', async () => {
    expect((await call('GET', `/stacks/${STACK_ID}`)).headers.get('etag')).toBe('"3"');
  });

  it('answers HEAD without a body and compresses long answers', async () => {
    expect(await call('HEAD', `/stacks/${STACK_ID}`)).toMatchObject({ status: 200, text: '' });
    const long = await call('POST', `/stacks/${STACK_ID}/deployment-objects`, `# ${'x'.repeat(5000)}\n`, {
      'content-type': 'text/yaml',
    });
    expect(long.headers.get('content-encoding')).toBe('gzip');
    expect(long.json.yaml_content).toHaveLength(5003);
  });
});
