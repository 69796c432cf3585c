import { describe, expect, it } from 'vitest';
import { classify, conflicts, kubeError, missing, webhookName } from './errors.ts';

const status = (code: number, message: string, rest: object = {}) =>
  kubeError(code, JSON.stringify({ kind: 'Status', code, message, ...rest }), undefined);

describe('classify', () => {
  it.each([
    [
      500,
      'failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .dta: field not declared in schema',
      'permanent',
    ],
    [500, 'failed to convert new object (default/a; apps/v1, Kind=Deployment) to proper version', 'permanent'],
    [
      500,
      'failed to prune fields: failed to convert merged object to last applied version: .spec.b: field not declared in schema',
      'permanent',
    ],
    [
      500,
      'Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: connection refused',
      'transient-slow',
    ],
    [503, 'no endpoints available for service "hook"', 'transient-slow'],
    [500, 'context deadline exceeded', 'transient'],
    [504, 'Timeout: request did not complete within requested timeout', 'transient'],
    [429, 'too many requests, please try again later', 'transient'],
    [403, 'admission webhook "a.example.com" denied the request: no', 'denied'],
    [422, `pods "a" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`, 'denied'],
    [403, 'pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1', 'denied'],
    [403, 'configmaps "a" is forbidden: User "u" cannot patch resource "configmaps"', 'permission'],
    [409, 'Operation cannot be fulfilled on configmaps "a": the object has been modified', 'race'],
    [410, 'too old resource version: 1 (2)', 'expired'],
    [413, 'Request entity too large: limit is 3145728', 'size'],
    [422, 'ConfigMap "big" is invalid: []: Too long: may not be more than 1048576 bytes', 'size'],
    [422, 'Deployment "a" is invalid: spec.selector: field is immutable', 'permanent'],
    [400, 'error strict decoding YAML', 'permanent'],
    [401, 'Unauthorized', 'credential'],
    [404, 'namespaces "nope" not found', 'dependency'],
  ] as const)('%i %s is %s', (code, message, expected) => {
    expect(classify(status(code, message))).toBe(expected);
  });

  it('tells a conflict of field managers from a lost race, and names manager and field', () => {
    const error = status(409, 'Apply failed with 1 conflict', {
      reason: 'Conflict',
      details: {
        causes: [
          {
            reason: 'FieldManagerConflict',
            message: 'conflict with "kubectl-client-side-apply" using apps/v1',
            field: '.spec.replicas',
          },
        ],
      },
    });
    expect(classify(error)).toBe('policy');
    expect(conflicts(error)).toEqual([{ manager: 'kubectl-client-side-apply', field: '.spec.replicas' }]);
  });

  it('tells a terminating namespace from missing rights', () => {
    const causes = [{ reason: 'NamespaceTerminating', message: 'namespace a is being terminated', field: 'metadata.namespace' }];
    expect(classify(status(403, 'unable to create new content in namespace a', { details: { causes } }))).toBe('dependency');
  });

  it('takes everything that is no answer of the server as transient', () => {
    expect(classify(Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' }))).toBe('transient');
  });
});

describe('kubeError', () => {
  it('reads Retry-After from the header or from the status', () => {
    expect(kubeError(429, 'Too many requests', '3').retryAfterMs).toBe(3000);
    expect(status(429, 'storage is initialising', { details: { retryAfterSeconds: 2 } }).retryAfterMs).toBe(2000);
  });

  it('takes an answer that is no Status object as it is, shortened', () => {
    expect(kubeError(502, '<html>bad gateway</html>', undefined)).toMatchObject({
      status: 502,
      message: '<html>bad gateway</html>',
      reason: '',
    });
    expect(kubeError(503, 'x'.repeat(10_000), undefined).message).toHaveLength(1024);
    expect(kubeError(503, '', undefined).message).toBe('HTTP 503');
  });

  it('names the webhook', () => {
    expect(webhookName(status(403, 'admission webhook "a.example.com" denied the request: no'))).toBe('a.example.com');
    expect(webhookName(status(500, 'failed calling webhook "b.example.com": x'))).toBe('b.example.com');
  });
});

describe('missing', () => {
  const notFound = (kind: string, name: string) => status(404, 'not found', { reason: 'NotFound', details: { kind, name } });

  it('tells object, namespace and kind apart', () => {
    expect(missing(notFound('configmaps', 'a'), 'configmaps')).toBe('object');
    expect(missing(notFound('namespaces', 'a'), 'configmaps')).toBe('namespace');
    expect(missing(notFound('namespaces', 'a'), 'namespaces')).toBe('object');
    expect(
      missing(status(404, 'the server could not find the requested resource', { reason: 'NotFound', details: {} }), 'zs'),
    ).toBe('kind');
    expect(missing(kubeError(404, '404 page not found', undefined), 'zs')).toBe('kind');
    expect(missing(status(403, 'forbidden'), 'zs')).toBeUndefined();
  });
});
