import { type DescField, type DescMethod, type DescService, getOption, hasOption } from '@bufbuild/protobuf';
import { type Rest, rest } from '#proto/brokkr/v1/options_pb.js';
import { http } from '#proto/google/api/annotations_pb.js';

/** One REST route, compiled from `google.api.http` and `brokkr.v1.rest`. */
export interface Route {
  readonly method: DescMethod;
  /** GET, POST, PUT, PATCH or DELETE. */
  readonly verb: string;
  readonly template: string;
  /** Field of each path parameter, in order. */
  readonly parameters: readonly DescField[];
  /** Whether the body is the whole request, one field of it, or not read. */
  readonly body: { readonly kind: 'whole' } | { readonly kind: 'field'; readonly field: DescField } | { readonly kind: 'none' };
  /** Field of the response that is the answer; the whole response when undefined. */
  readonly responseField: DescField | undefined;
  /** Status of success. */
  readonly status: number;
  /** True when success has no body. */
  readonly empty: boolean;
  /** Fields by the names query parameters have. */
  readonly query: ReadonlyMap<string, DescField>;
  /** The route is chosen only when the query has one of these; empty for always. */
  readonly whenQuery: readonly string[];
  /** Field that takes a raw YAML body. */
  readonly yamlBody: DescField | undefined;
  /** Path of fields in the response that is answered as text to clients that accept YAML. */
  readonly yamlResponse: readonly DescField[] | undefined;
  /** Field mask that lists the fields present in the body, null included. */
  readonly presenceMask: DescField | undefined;
  /** Token of the next page in the response. */
  readonly nextPageToken: DescField | undefined;
}

/** What a path leads to. */
export type Match =
  | { readonly kind: 'route'; readonly route: Route; readonly values: readonly string[] }
  | { readonly kind: 'wrong-method'; readonly allowed: readonly string[] }
  | { readonly kind: 'none' };

/** All REST routes. */
export interface Routes {
  readonly all: readonly Route[];
  /** `path` without query; a trailing slash makes no difference. `has` tells whether the query has a parameter. */
  match(verb: string, path: string, has: (parameter: string) => boolean): Match;
}

interface Node {
  readonly literals: Map<string, Node>;
  parameter: Node | undefined;
  readonly routes: Route[];
}

/** Compiles the routes of the methods of `services`. Throws when an annotation names a field that does not exist. */
export function compileRoutes(services: readonly DescService[]): Routes {
  const root = createNode();
  const all: Route[] = [];
  for (const method of services.flatMap((service) => service.methods)) {
    if (!hasOption(method, http)) continue;
    const rule = getOption(method, http);
    for (const binding of [rule, ...rule.additionalBindings]) {
      const route = compileRoute(method, binding);
      all.push(route);
      insert(root, route);
    }
  }
  return {
    all,
    match(verb, path, has) {
      const segments = segmentsOf(path);
      const found = segments && find(root, segments, 0, []);
      if (!found) return { kind: 'none' };
      const candidates = found.node.routes.filter((route) => route.verb === verb);
      const chosen =
        candidates.find((route) => route.whenQuery.some(has)) ??
        candidates.find((route) => route.whenQuery.length === 0) ??
        candidates[0];
      if (chosen) return { kind: 'route', route: chosen, values: found.values };
      return { kind: 'wrong-method', allowed: [...new Set(found.node.routes.map((route) => route.verb))] };
    },
  };
}

function createNode(): Node {
  return { literals: new Map(), parameter: undefined, routes: [] };
}

function insert(root: Node, route: Route): void {
  let node = root;
  for (const segment of templateSegments(route.template)) {
    if (segment.startsWith('{')) {
      node.parameter ??= createNode();
      node = node.parameter;
    } else {
      const next = node.literals.get(segment) ?? createNode();
      node.literals.set(segment, next);
      node = next;
    }
  }
  node.routes.push(route);
}

/** Literal segments win over parameters; where they lead nowhere, parameters are tried. */
function find(
  node: Node,
  segments: readonly string[],
  at: number,
  values: readonly string[],
): { node: Node; values: readonly string[] } | undefined {
  const segment = segments[at];
  if (segment === undefined) return node.routes.length > 0 ? { node, values } : undefined;
  const literal = node.literals.get(segment);
  const found = literal && find(literal, segments, at + 1, values);
  if (found) return found;
  return node.parameter && segment !== '' ? find(node.parameter, segments, at + 1, [...values, segment]) : undefined;
}

/** Decoded segments; undefined when the percent encoding is broken. */
function segmentsOf(path: string): readonly string[] | undefined {
  const trimmed = path.endsWith('/') ? path.slice(1, -1) : path.slice(1);
  if (!trimmed.includes('%')) return trimmed.split('/');
  try {
    return trimmed.split('/').map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

function templateSegments(template: string): string[] {
  return template.replace(/^\/|\/$/g, '').split('/');
}

interface Binding {
  readonly pattern: { readonly case?: string | undefined; readonly value?: unknown };
  readonly body: string;
  readonly responseBody: string;
}

function compileRoute(method: DescMethod, binding: Binding): Route {
  const template = String(binding.pattern.value);
  const options: Partial<Rest> = hasOption(method, rest) ? getOption(method, rest) : {};
  const input = (name: string) => fieldNamed(method, method.input.fields, name);
  const output = (name: string) => fieldNamed(method, method.output.fields, name);
  const query = new Map(method.input.fields.map((field) => [field.name, field]));
  for (const alias of options.queryAlias ?? []) {
    const [name = '', field = ''] = alias.split('=');
    query.set(name, input(field));
  }
  const parameters = templateSegments(template).filter((segment) => segment.startsWith('{'));
  return {
    method,
    verb: String(binding.pattern.case).toUpperCase(),
    template,
    parameters: parameters.map((segment) => input(segment.slice(1, -1))),
    body: bodyOf(binding.body, input),
    responseField: binding.responseBody ? output(binding.responseBody) : undefined,
    status: options.status || 200,
    empty: options.empty ?? false,
    query,
    whenQuery: options.whenQuery ?? [],
    yamlBody: options.yamlBody ? input(options.yamlBody) : undefined,
    yamlResponse: options.yamlResponse ? fieldPath(method, options.yamlResponse) : undefined,
    presenceMask: options.presenceMask ? input('update_mask') : undefined,
    nextPageToken: method.output.fields.find((field) => field.name === 'next_page_token'),
  };
}

function bodyOf(body: string, input: (name: string) => DescField): Route['body'] {
  if (body === '') return { kind: 'none' };
  return body === '*' ? { kind: 'whole' } : { kind: 'field', field: input(body) };
}

function fieldPath(method: DescMethod, path: string): DescField[] {
  let fields: readonly DescField[] = method.output.fields;
  return path.split('.').map((name) => {
    const field = fieldNamed(method, fields, name);
    fields = field.message?.fields ?? [];
    return field;
  });
}

function fieldNamed(method: DescMethod, fields: readonly DescField[], name: string): DescField {
  const field = fields.find((candidate) => candidate.name === name);
  if (!field)
    throw new Error(`the REST route of ${method.parent.typeName}/${method.name} names the field ${name}, which does not exist`);
  return field;
}
