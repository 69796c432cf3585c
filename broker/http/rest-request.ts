import {
  create,
  type DescField,
  type DescMethod,
  type JsonObject,
  type JsonValue,
  type Message,
  toBinary,
} from '@bufbuild/protobuf';
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt';
import { BrokkrError, type ErrorName } from '#lib/errors.ts';
import type { IncomingRequest } from '#lib/listener.ts';
import { InputReader } from '#lib/rest-input.ts';
import { decodeText, mediaType, readBody, YAML_TYPES } from './body.ts';
import { jsonErrorPosition } from './json-position.ts';
import { hasBody } from './request.ts';
import type { Route } from './routes.ts';
import { invalidName, isErrorName } from './rpc-errors.ts';

/** Turns a REST request into the request message of its route's method. */
export interface RequestReader {
  /**
   * Merges path, query and body and encodes the message. `values` are the path parameters. Throws what a client may have
   * done wrong: `invalid_request`, `invalid_request_body`, `unsupported_content_type`, `payload_too_large`, `<x>_id_mismatch`.
   */
  read(
    request: IncomingRequest,
    route: Route,
    values: readonly string[],
    query: URLSearchParams,
    maxBytes: number,
  ): Promise<Uint8Array>;
}

/** A reader of REST requests. The protocol with agents ignores fields it does not know, everything else refuses them. */
export function createRequestReader(ignoresUnknown: (method: DescMethod) => boolean): RequestReader {
  const strict = new InputReader(false);
  const lenient = new InputReader(true);
  return {
    async read(request, route, values, query, maxBytes) {
      const reader = ignoresUnknown(route.method) ? lenient : strict;
      const { json, mask } = await readJson(reader, request, route, maxBytes);
      mergeQuery(reader, json, route, query);
      route.parameters.forEach((field, at) => void mergePath(reader, json, route, field, values[at] ?? ''));
      const message = reader.message(route.method.input, json);
      if (mask && route.presenceMask) setMask(message, route.presenceMask, mask);
      try {
        return toBinary(route.method.input, message);
      } catch (error) {
        throw new BrokkrError('invalid_request_body', 'the body has text that is not Unicode', { cause: error });
      }
    },
  };
}

/** The body as proto JSON, and the names of the fields present in it where the route asks for them. */
async function readJson(
  reader: InputReader,
  request: IncomingRequest,
  route: Route,
  maxBytes: number,
): Promise<{ readonly json: JsonObject; readonly mask?: readonly string[] }> {
  if (!hasBody(request) || request.method === 'GET' || request.method === 'HEAD') return { json: {} };
  const type = mediaType(request.headers['content-type']);
  const yaml = route.yamlBody !== undefined && YAML_TYPES.includes(type);
  const bytes = await readBody(request, maxBytes);
  if (yaml && route.yamlBody) return { json: { [route.yamlBody.name]: decodeText(bytes, true) } };
  if (bytes.byteLength === 0) return { json: {} };
  if (type !== '' && type !== 'application/json' && !type.endsWith('+json')) {
    const allowed = ['application/json', ...(route.yamlBody ? YAML_TYPES : [])].join(', ');
    throw new BrokkrError('unsupported_content_type', `content-type is ${type}, allowed are ${allowed}`);
  }
  const value = parseJson(decodeText(bytes, false));
  switch (route.body.kind) {
    case 'none':
      if (value === null || (typeof value === 'object' && Object.keys(value).length === 0)) return { json: {} };
      throw new BrokkrError('invalid_request_body', `${route.verb} ${route.template} takes no body`);
    case 'whole':
      return { json: value === null ? {} : (reader.normalize(route.method.input, value, '') as JsonObject) };
    case 'field': {
      const content = reader.normalizeField(route.body.field, value, route.body.field.message ? '' : route.body.field.name);
      const mask = route.presenceMask && content !== null && typeof content === 'object' ? Object.keys(content) : undefined;
      return { json: { [route.body.field.name]: content }, ...(mask && { mask }) };
    }
  }
}

function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    const { line, column } = jsonErrorPosition(text);
    throw new BrokkrError('invalid_request_body', `the body is not JSON: line ${line}, column ${column}`, {
      details: { line, column },
      cause: error,
    });
  }
}

function mergeQuery(reader: InputReader, json: JsonObject, route: Route, query: URLSearchParams): void {
  for (const name of new Set(query.keys())) {
    const field = route.query.get(name);
    if (!field || route.parameters.includes(field)) {
      const known = [...route.query].filter(([, candidate]) => !route.parameters.includes(candidate)).map(([key]) => key);
      const hint = known.length > 0 ? `, known are ${known.join(', ')}` : '';
      throw new BrokkrError('invalid_request', `unknown query parameter ${name}${hint}`, { details: { parameter: name } });
    }
    const value = reader.parameter(field, query.getAll(name), name);
    const inBody = json[field.name];
    if (inBody !== undefined && inBody !== null && JSON.stringify(inBody) !== JSON.stringify(value)) {
      throw new BrokkrError('invalid_request', `${field.name} is given in the query and, differently, in the body`);
    }
    json[field.name] = value;
  }
}

/** Ids in the path and in the body must agree. */
function mergePath(reader: InputReader, json: JsonObject, route: Route, field: DescField, value: string): void {
  const body = route.body.kind === 'field' ? json[route.body.field.name] : json;
  const inBody = body !== null && typeof body === 'object' && !Array.isArray(body) ? body[field.name] : undefined;
  if (inBody !== undefined && inBody !== null && !sameId(inBody, value)) {
    throw new BrokkrError(
      mismatchName(route, field),
      `${field.name} is ${value} in the path and ${JSON.stringify(inBody)} in the body`,
    );
  }
  json[field.name] = reader.parameter(field, [value], field.name);
}

function sameId(inBody: JsonValue, inPath: string): boolean {
  return typeof inBody === 'string' && (inBody === inPath || inBody.toLowerCase() === inPath.toLowerCase());
}

/** `agent_id_mismatch` for `agent_id` and for the `id` of `/agents/{id}`; the route's own name where there is none. */
function mismatchName(route: Route, field: DescField): ErrorName {
  const noun = /\/([a-z-]+)s\/\{id\}/.exec(route.template)?.[1]?.replaceAll('-', '_');
  const name = `${field.name === 'id' ? `${noun}_id` : field.name}_mismatch`;
  return isErrorName(name) ? name : invalidName(route.method);
}

function setMask(message: Message, field: DescField, paths: readonly string[]): void {
  (message as unknown as Record<string, unknown>)[field.localName] = create(FieldMaskSchema, { paths: [...paths] });
}
