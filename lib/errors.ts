/** Status codes of gRPC, which Connect shares (gRPC documentation, "Status codes and their use in gRPC"). */
const Code = {
  Canceled: 1,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  Unauthenticated: 16,
} as const;

/** A gRPC status code that an error can have. */
export type StatusCode = (typeof Code)[keyof typeof Code];

/**
 * The one error table: stable name → Connect code and HTTP status of the REST routes. The names are a contract
 * (docs/reference/errors.md); messages are not. A name not in the table cannot be thrown (types).
 */
export const ERRORS = {
  // authentication and authorisation
  unauthorized: [Code.Unauthenticated, 401],
  forbidden: [Code.PermissionDenied, 403],
  admin_required: [Code.PermissionDenied, 403],
  agent_pak_required: [Code.PermissionDenied, 403],
  agent_pak_mismatch: [Code.PermissionDenied, 403],
  generator_required: [Code.PermissionDenied, 403],
  read_only_key: [Code.PermissionDenied, 403],
  // requests
  invalid_request: [Code.InvalidArgument, 400],
  invalid_request_body: [Code.InvalidArgument, 400],
  unsupported_content_type: [Code.InvalidArgument, 415],
  not_acceptable: [Code.InvalidArgument, 406],
  not_found: [Code.NotFound, 404],
  method_not_allowed: [Code.Unimplemented, 405],
  payload_too_large: [Code.ResourceExhausted, 413],
  too_many_requests: [Code.ResourceExhausted, 429],
  page_required: [Code.InvalidArgument, 400],
  invalid_page_token: [Code.InvalidArgument, 400],
  idempotency_key_reused: [Code.FailedPrecondition, 422],
  precondition_failed: [Code.FailedPrecondition, 412],
  immutable_field: [Code.InvalidArgument, 400],
  // database constraints
  unique_violation: [Code.AlreadyExists, 409],
  foreign_key_violation: [Code.FailedPrecondition, 422],
  check_violation: [Code.InvalidArgument, 422],
  not_null_violation: [Code.InvalidArgument, 422],
  // agents
  agent_not_found: [Code.NotFound, 404],
  invalid_agent: [Code.InvalidArgument, 400],
  agent_id_mismatch: [Code.InvalidArgument, 400],
  name_and_cluster_required: [Code.InvalidArgument, 400],
  agent_label_not_found: [Code.NotFound, 404],
  agent_annotation_not_found: [Code.NotFound, 404],
  agent_event_not_found: [Code.NotFound, 404],
  agent_target_not_found: [Code.NotFound, 404],
  agent_not_registered: [Code.PermissionDenied, 403],
  agent_required: [Code.InvalidArgument, 400],
  agent_inactive: [Code.FailedPrecondition, 403],
  invalid_generator_id: [Code.InvalidArgument, 400],
  target_generator_mismatch: [Code.PermissionDenied, 403],
  target_create_denied: [Code.PermissionDenied, 403],
  invalid_health_record: [Code.InvalidArgument, 422],
  session_active: [Code.FailedPrecondition, 409],
  // generators
  generator_not_found: [Code.NotFound, 404],
  generator_not_owned: [Code.PermissionDenied, 403],
  not_authorized: [Code.PermissionDenied, 403],
  cannot_delete_system_generator: [Code.PermissionDenied, 403],
  system_generator_not_a_tenant: [Code.PermissionDenied, 403],
  missing_agent_id: [Code.InvalidArgument, 400],
  already_registered: [Code.AlreadyExists, 409],
  registration_not_found: [Code.NotFound, 404],
  invalid_generator: [Code.InvalidArgument, 400],
  // keys
  key_not_found: [Code.NotFound, 404],
  invalid_key: [Code.InvalidArgument, 400],
  // stacks
  stack_not_found: [Code.NotFound, 404],
  stack_not_owned: [Code.PermissionDenied, 403],
  stack_not_accessible: [Code.PermissionDenied, 403],
  stacks_list_denied: [Code.PermissionDenied, 403],
  stack_create_denied: [Code.PermissionDenied, 403],
  stack_generator_mismatch: [Code.PermissionDenied, 403],
  stack_id_mismatch: [Code.InvalidArgument, 400],
  invalid_stack: [Code.InvalidArgument, 400],
  invalid_label: [Code.InvalidArgument, 400],
  stack_label_not_found: [Code.NotFound, 404],
  invalid_annotation: [Code.InvalidArgument, 400],
  stack_annotation_not_found: [Code.NotFound, 404],
  deployment_object_not_found: [Code.NotFound, 404],
  generation_not_found: [Code.NotFound, 404],
  no_good_generation: [Code.FailedPrecondition, 409],
  invalid_deployment_object: [Code.InvalidArgument, 400],
  agent_not_associated: [Code.PermissionDenied, 403],
  generator_not_associated: [Code.PermissionDenied, 403],
  // webhooks
  webhook_not_found: [Code.NotFound, 404],
  invalid_webhook: [Code.InvalidArgument, 400],
  url_required: [Code.InvalidArgument, 400],
  invalid_url_scheme: [Code.InvalidArgument, 400],
  webhook_test_failed: [Code.FailedPrecondition, 400],
  webhook_secrets_unreadable: [Code.FailedPrecondition, 409],
  delivery_not_found: [Code.NotFound, 404],
  // sync
  duplicate_identity: [Code.FailedPrecondition, 409],
  superseded: [Code.Aborted, 409],
  session_unknown: [Code.FailedPrecondition, 409],
  protocol_violation: [Code.InvalidArgument, 400],
  unsupported_version: [Code.FailedPrecondition, 400],
  slow_consumer: [Code.ResourceExhausted, 429],
  blob_not_found: [Code.NotFound, 404],
  draining: [Code.Unavailable, 503],
  // the broker itself
  database_unavailable: [Code.Unavailable, 503],
  unavailable: [Code.Unavailable, 503],
  deadline_exceeded: [Code.DeadlineExceeded, 504],
  canceled: [Code.Canceled, 499],
  unimplemented: [Code.Unimplemented, 501],
  internal_error: [Code.Internal, 500],
} as const satisfies Record<string, readonly [StatusCode, number]>;

/** A stable error name. */
export type ErrorName = keyof typeof ERRORS;

/** Values of `details`: JSON only, and never a secret. */
export type ErrorDetails = Readonly<Record<string, JsonValue>>;

/** Any JSON value. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** A failure the caller can understand. Anything else thrown by a handler is a bug and reaches the caller as `internal_error`. */
export class BrokkrError extends Error {
  override readonly name = 'BrokkrError';
  /** Stable name, see `ERRORS`. */
  readonly code: ErrorName;
  /** Machine-readable details, part of the contract where API documents name them. */
  readonly details: ErrorDetails | undefined;

  /** `message`: lower case, no full stop, names the place and the limit. */
  constructor(code: ErrorName, message: string, options: { readonly details?: ErrorDetails; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details;
  }
}

/** HTTP status of the REST routes for an error name. */
export function httpStatus(code: ErrorName): number {
  return ERRORS[code][1];
}

/** gRPC (and Connect) code of an error name. */
export function statusCode(code: ErrorName): StatusCode {
  return ERRORS[code][0];
}

/** The text of any thrown value, for fields named `error`. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
