import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { DEFAULT_LIMITS, parseStream } from '#lib/yaml.ts';
import { offsetsOf } from '#lib/yaml-places.ts';
import { jsonPointer, LineIndex } from '#lib/yaml-problems.ts';

/** One thing wrong with a flow set or with facts. */
export interface FlowProblem {
  /** `flows.yaml:31:7`; the file's name alone where there is no better. */
  readonly place: string;
  /** Lower case, no full stop. */
  readonly message: string;
}

/** Says everything that is wrong at once, each on a line of its own with its place. */
export class FlowSetError extends Error {
  override readonly name = 'FlowSetError';
  readonly problems: readonly FlowProblem[];

  constructor(problems: readonly FlowProblem[]) {
    const more = problems.length - MAX_PROBLEMS;
    const lines = problems.slice(0, MAX_PROBLEMS).map(({ place, message }) => `${place}: ${message}`);
    super([...lines, ...(more > 0 ? [`${more} more problems are not shown (the limit is ${MAX_PROBLEMS})`] : [])].join('\n'));
    this.problems = problems;
  }
}

/** Problems told at once. */
const MAX_PROBLEMS = 100;

/** A file of one document that has the form of its schema. */
export interface Document<T> {
  readonly value: T;
  /** Where a part of it stands, as `file:line:column`. */
  readonly at: (...path: readonly (string | number)[]) => string;
}

/** Reads a file of one YAML document. Throws `FlowSetError` with every place that does not have the form of the schema. */
export function readDocument<T>(text: string, file: string, schema: object): Document<T> {
  const { documents, problems } = parseStream(text, { limits: { ...DEFAULT_LIMITS, documents: 1 } });
  const errors = problems.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) {
    const placeOf = (line = 1, column = 1) => `${file}:${line}:${column}`;
    throw new FlowSetError(errors.map(({ line, column, message }) => ({ place: placeOf(line, column), message })));
  }
  const [document] = documents;
  if (!document) throw new FlowSetError([{ place: file, message: 'the file holds no document' }]);
  const lines = new LineIndex(text);
  const offsetOf = offsetsOf(document.text);
  const placeOf = (pointer: string) => {
    const { line, column } = lines.at(document.offset + offsetOf(pointer));
    return `${file}:${line}:${column}`;
  };
  const validate = validatorOf(schema);
  if (!validate(document.value)) throw new FlowSetError(problemsOf(validate.errors ?? [], placeOf));
  return { value: document.value as T, at: (...path) => placeOf(jsonPointer(...path)) };
}

const validators = new WeakMap<object, ValidateFunction>();

/** Compiling a schema takes longer than most files: each is compiled once. */
function validatorOf(schema: object): ValidateFunction {
  const validate = validators.get(schema) ?? new Ajv({ allErrors: true, verbose: true, strictTypes: false }).compile(schema);
  validators.set(schema, validate);
  return validate;
}

function problemsOf(errors: readonly ErrorObject[], placeOf: (pointer: string) => string): FlowProblem[] {
  // the name that is wrong has an error of its own
  return errors.filter(({ keyword }) => keyword !== 'propertyNames').map((error) => problemOf(error, placeOf));
}

function problemOf(error: ErrorObject, placeOf: (pointer: string) => string): FlowProblem {
  const { keyword, instancePath, params, message = '', parentSchema = {}, propertyName } = error;
  const field = instancePath === '' ? 'the document' : fieldName(instancePath);
  const told = (text: string, pointer = instancePath) => ({ place: placeOf(pointer), message: text });
  if (keyword === 'additionalProperties') {
    const unknown = String(params.additionalProperty);
    const known = Object.keys(parentSchema.properties ?? {}).join(', ');
    return told(`unknown field ${unknown} in ${field}, known are ${known}`, `${instancePath}${jsonPointer(unknown)}`);
  }
  if (keyword === 'required') return told(`${field} needs the field ${params.missingProperty}`);
  if (keyword === 'enum') return told(`${field} must be one of ${params.allowedValues.join(', ')}`);
  if (keyword === 'const') return told(`${field} must be ${params.allowedValue}`);
  if (propertyName !== undefined)
    return told(`${propertyName} is no name for a member of ${field}: ${message}`, `${instancePath}${jsonPointer(propertyName)}`);
  if (keyword === 'minItems' || keyword === 'minProperties') return told(`${field} must not be empty`);
  return told(`${field} ${message}`);
}

/** `spec.flows[3].ports` of `/spec/flows/3/ports`. */
function fieldName(pointer: string): string {
  const segments = pointer.slice(1).split('/');
  const names = segments.map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
  return names.map((name, index) => (/^\d+$/.test(name) ? `[${name}]` : `${index > 0 ? '.' : ''}${name}`)).join('');
}
