import { type DescMethod, getOption, hasOption } from '@bufbuild/protobuf';
import { SERVICES } from '../broker/broker.ts';
import { ERRORS } from '../lib/errors.ts';
import { access, rest } from '../proto/gen/brokkr/v1/options_pb.js';
import { http } from '../proto/gen/google/api/annotations_pb.js';

// Rules of the contract that buf cannot know: who may call, what validation failures are called, REST routes.

/** What is wrong with the contract, one line each. */
export function contractProblems(methods: readonly DescMethod[]): string[] {
  const problems: string[] = [];
  for (const method of methods) {
    const name = `${method.parent.typeName}.${method.name}`;
    if (!hasOption(method, access) || getOption(method, access).allow.length === 0)
      problems.push(`${name} has no access rule (option (access))`);
    const invalid = hasOption(method, rest) ? getOption(method, rest).invalid : '';
    if (invalid !== '' && !(invalid in ERRORS)) problems.push(`${name}: ${invalid} is not in the error table (lib/errors.ts)`);
    if (method.methodKind === 'unary' && !hasOption(method, http)) problems.push(`${name} has no REST route (google.api.http)`);
  }
  return problems;
}

const problems = contractProblems(SERVICES.flatMap((service) => service.methods));
for (const problem of problems) process.stderr.write(`${problem}\n`);
if (problems.length > 0) process.exitCode = 1;
