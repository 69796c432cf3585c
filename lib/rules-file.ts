import { Ajv, type ErrorObject } from 'ajv';
import { CelError, compileCel } from './cel.ts';
import { errorText } from './errors.ts';
import { parseQuantity } from './quantity.ts';
import { RULE_VARIABLES, type Rules } from './rules.ts';
import { DEFAULT_LIMITS, parseStream } from './yaml.ts';
import { offsetOfPointer } from './yaml-places.ts';
import { jsonPointer, LineIndex } from './yaml-problems.ts';

/** What a rules file says: the rules, or everything that is wrong with it, each as `line 3, column 5: what`. */
export interface RulesFile {
  readonly rules: Rules;
  readonly problems: readonly string[];
}

/** Problems told at once. */
const MAX_PROBLEMS = 20;

const texts = (maxLength: number) => ({
  type: 'array',
  minItems: 1,
  maxItems: 1000,
  items: { type: 'string', minLength: 1, maxLength },
});
const closed = (properties: object, required: readonly string[] = []) => ({
  type: 'object',
  additionalProperties: false,
  properties,
  required,
});
const allowance = closed({ allowed: texts(253), forbidden: texts(253) });
const quantity = { type: ['string', 'number'], format: 'quantity' };
const quantities = { type: 'object', minProperties: 1, additionalProperties: quantity };

/** Form of the file. */
const SCHEMA = closed({
  namespaces: allowance,
  kinds: allowance,
  labels: {
    type: 'array',
    maxItems: 100,
    items: closed({ kinds: texts(317), required: texts(317) }, ['required']),
  },
  ceilings: closed({
    requests: quantities,
    limits: quantities,
    replicas: { type: 'integer', minimum: 0 },
    storage: quantity,
  }),
  images: closed({ allowed: texts(512) }, ['allowed']),
  expressions: {
    type: 'array',
    maxItems: 100,
    items: closed(
      {
        name: { type: 'string', pattern: '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' },
        kinds: texts(317),
        expression: { type: 'string' },
        message: { type: 'string', minLength: 1, maxLength: 500 },
      },
      ['name', 'expression', 'message'],
    ),
  },
});

/** Reads the rules of an environment from the text of their file. Takes milliseconds: for threads of a pool. */
export function readRules(text: string): RulesFile {
  const { documents, problems } = parseStream(text, { limits: { ...DEFAULT_LIMITS, documents: 1 } });
  const errors = problems.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) {
    const told = errors.map(({ line, column, message }) => `${line === undefined ? '' : place(line, column ?? 1)}${message}`);
    return { rules: {}, problems: told.slice(0, MAX_PROBLEMS) };
  }
  const [document] = documents;
  if (!document) return { rules: {}, problems: ['the file has no rules'] };
  const found: [pointer: string, message: string][] = [];
  const validate = createAjv().compile(SCHEMA);
  if (!validate(document.value)) for (const error of validate.errors ?? []) found.push(describe(error));
  else checkExpressions(document.value as unknown as Rules, (pointer, message) => found.push([pointer, message]));
  const lines = new LineIndex(text);
  const told = found.slice(0, MAX_PROBLEMS).map(([pointer, message]) => {
    const { line, column } = lines.at(document.offset + offsetOfPointer(document.text, pointer));
    return `${place(line, column)}${pointer === '' ? '' : `${pointer} `}${message}`;
  });
  return { rules: told.length > 0 ? {} : (document.value as unknown as Rules), problems: told };
}

function checkExpressions({ expressions = [] }: Rules, report: (pointer: string, message: string) => void): void {
  const names = new Set<string>();
  for (const [index, { name, expression }] of expressions.entries()) {
    if (names.has(name)) report(jsonPointer('expressions', index, 'name'), 'is the name of two expressions');
    names.add(name);
    try {
      compileCel(expression, RULE_VARIABLES, 'bool');
    } catch (error) {
      if (!(error instanceof CelError)) throw error;
      report(jsonPointer('expressions', index, 'expression'), `is invalid: ${errorText(error)}`);
    }
  }
}

function createAjv(): Ajv {
  const ajv = new Ajv({ allErrors: true, strictTypes: false });
  ajv.addFormat('quantity', (text: string) => parseQuantity(text) !== undefined);
  return ajv;
}

function describe({ keyword, instancePath, params, message = '' }: ErrorObject): [pointer: string, message: string] {
  if (keyword === 'additionalProperties')
    return [`${instancePath}${jsonPointer(String(params.additionalProperty))}`, 'is unknown'];
  return [instancePath, message];
}

function place(line: number, column: number): string {
  return `line ${line}, column ${column}: `;
}
