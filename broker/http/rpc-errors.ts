import { create, type DescMethod, getOption, hasOption, type JsonObject, toBinary } from '@bufbuild/protobuf';
import { ViolationsSchema } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { BrokkrError, ERRORS, type ErrorDetails, type ErrorName, errorText, statusCode } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { noteError } from '#lib/tracing.ts';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import { rest } from '#proto/brokkr/v1/options_pb.js';

/** The one shape of every error: what REST prints and what RPC clients find as the detail `brokkr.v1.Error`. */
export interface ErrorBody {
  readonly code: ErrorName;
  readonly message: string;
  readonly details?: ErrorDetails | undefined;
}

/** How RPC clients are told to authenticate (RFC 9110, 11.6.1). */
export const CHALLENGE = 'Bearer realm="brokkr"';

/** Error names for failures that Connect itself raises: limits, deadlines, missing methods, unreadable messages. */
const NAMES: Readonly<Record<Code, ErrorName>> = {
  [Code.Canceled]: 'canceled',
  [Code.Unknown]: 'internal_error',
  [Code.InvalidArgument]: 'invalid_request',
  [Code.DeadlineExceeded]: 'deadline_exceeded',
  [Code.NotFound]: 'not_found',
  [Code.AlreadyExists]: 'unique_violation',
  [Code.PermissionDenied]: 'forbidden',
  [Code.ResourceExhausted]: 'payload_too_large',
  [Code.FailedPrecondition]: 'precondition_failed',
  [Code.Aborted]: 'unavailable',
  [Code.OutOfRange]: 'invalid_request',
  [Code.Unimplemented]: 'unimplemented',
  [Code.Internal]: 'internal_error',
  [Code.Unavailable]: 'unavailable',
  [Code.DataLoss]: 'internal_error',
  [Code.Unauthenticated]: 'unauthorized',
};

/** The error body for a code without a detail of ours. */
function errorNameOf(code: Code): ErrorName {
  return NAMES[code];
}

/** True for a name of the error table. */
export function isErrorName(name: string): name is ErrorName {
  return Object.hasOwn(ERRORS, name);
}

/** The error body of whatever was thrown, without logging. `internal_error` hides the text of what we did not expect. */
export function errorBodyOf(error: unknown, method?: DescMethod): ErrorBody {
  if (error instanceof BrokkrError) return { code: error.code, message: error.message, details: error.details };
  if (!(error instanceof ConnectError)) return { code: 'internal_error', message: 'something went wrong in the broker' };
  const ours = error.findDetails(ErrorSchema)[0];
  if (ours && isErrorName(ours.code)) return { code: ours.code, message: ours.message, details: ours.details as ErrorDetails };
  const violations = error.findDetails(ViolationsSchema)[0]?.violations;
  if (!violations) return { code: errorNameOf(error.code), message: error.rawMessage };
  const list = violations.map((item) => ({ field: fieldPath(item), message: item.message }));
  return {
    code: invalidName(method),
    message: list.map(({ field, message }) => (field ? `${field}: ${message}` : message)).join('; '),
    details: { violations: list },
  };
}

/** The error name for requests to this method that fail validation. */
export function invalidName(method: DescMethod | undefined): ErrorName {
  const name = method && hasOption(method, rest) ? getOption(method, rest).invalid : '';
  return isErrorName(name) ? name : 'invalid_request';
}

function fieldPath(violation: { readonly field?: { readonly elements: readonly FieldPathElement[] } | undefined }): string {
  return (violation.field?.elements ?? [])
    .map(({ fieldName, subscript }, at) => {
      const index =
        subscript.case === undefined
          ? ''
          : `[${typeof subscript.value === 'string' ? JSON.stringify(subscript.value) : subscript.value}]`;
      return `${at === 0 ? '' : '.'}${fieldName}${index}`;
    })
    .join('');
}

interface FieldPathElement {
  readonly fieldName: string;
  readonly subscript: { readonly case?: string | undefined; readonly value?: unknown };
}

/** The Connect error of an error body, with our detail and, for 401, the challenge. */
export function connectErrorOf(body: ErrorBody, cause?: unknown): ConnectError {
  const detail = { code: body.code, message: body.message, ...(body.details && { details: body.details as JsonObject }) };
  const code = statusCode(body.code);
  const metadata = code === Code.Unauthenticated ? { 'www-authenticate': CHALLENGE } : undefined;
  return new ConnectError(body.message, code, metadata, [{ desc: ErrorSchema, value: detail }], cause);
}

/** Our error detail in the binary form of `grpc-status-details-bin`. */
export function errorDetailBytes(body: ErrorBody): Uint8Array {
  const details = body.details && Object.keys(body.details).length > 0 ? { details: body.details as JsonObject } : {};
  return toBinary(ErrorSchema, create(ErrorSchema, { code: body.code, message: body.message, ...details }));
}

/**
 * Turns whatever a handler threw into a Connect error that carries our detail. What nobody expected is logged, once and
 * here, and reaches the caller as `internal_error`. A handler that stopped because its call ended is no failure.
 */
export function translate(error: unknown, method: DescMethod, signal: AbortSignal | undefined, log: Logger): ConnectError {
  const body = bodyOf(error, method, signal);
  noteError(body.code);
  if (body.code === 'internal_error') {
    log.error(
      { method: `${method.parent.typeName}/${method.name}`, error: errorText(error), stack: stackOf(error) },
      'request failed',
    );
    return connectErrorOf({ code: 'internal_error', message: 'something went wrong in the broker' }, error);
  }
  const translated = connectErrorOf(body, error);
  if (error instanceof ConnectError) error.metadata.forEach((value, name) => void translated.metadata.set(name, value));
  return translated;
}

function bodyOf(error: unknown, method: DescMethod, signal: AbortSignal | undefined): ErrorBody {
  if (error instanceof BrokkrError || error instanceof ConnectError) return errorBodyOf(error, method);
  if (signal?.aborted) {
    const reason: unknown = signal.reason;
    if (reason instanceof ConnectError && reason.code !== Code.Internal) return errorBodyOf(reason, method);
    return { code: 'canceled', message: 'the call has ended' };
  }
  return errorBodyOf(error, method);
}

function stackOf(error: unknown): string | undefined {
  return error instanceof Error ? error.stack : undefined;
}

/** The outermost interceptor: errors of handlers and of their streams leave as Connect errors with our detail. */
export function createErrorsInterceptor(log: Logger): Interceptor {
  return (next) => async (request) => {
    try {
      const response = await next(request);
      if (!response.stream) return response;
      return {
        ...response,
        message: guarded(response.message, (error) => translate(error, request.method, request.signal, log)),
      };
    } catch (error) {
      throw translate(error, request.method, request.signal, log);
    }
  };
}

async function* guarded<T>(messages: AsyncIterable<T>, translated: (error: unknown) => ConnectError): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw translated(error);
  }
}
