/**
 * Prints `buf/validate/validate.proto` from the descriptor inside `@bufbuild/protovalidate`, so that the vendored file and
 * the validator that runs are the same version. Run after an upgrade of that package:
 * `node hack/print-descriptor.ts > proto/vendor/buf/validate/validate.proto && buf format -w proto/vendor/buf`.
 */
import {
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  ScalarType,
} from '@bufbuild/protobuf';
import { file_buf_validate_validate as file, predefined } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';

const HEADER = `// Copyright 2023-2026 Buf Technologies, Inc.
//
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//      http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.

// Printed from the descriptor of @bufbuild/protovalidate by hack/print-descriptor.ts; comments are not part of a descriptor.
`;

const FIELD_NUMBER_MAX = 536_870_912; // exclusive; 2^29, protobuf language guide, "extension ranges"

function typeName(field: DescField | DescExtension): string {
  switch (field.fieldKind) {
    case 'map': {
      const value = field.scalar === undefined ? `.${(field.message ?? field.enum)?.typeName}` : scalarName(field.scalar);
      return `map<${scalarName(field.mapKey)}, ${value}>`;
    }
    case 'message':
      return `.${field.message.typeName}`;
    case 'enum':
      return `.${field.enum.typeName}`;
    case 'scalar':
      return scalarName(field.scalar);
    case 'list':
      return field.scalar === undefined ? `.${(field.message ?? field.enum)?.typeName}` : scalarName(field.scalar);
  }
}

function scalarName(type: ScalarType): string {
  return ScalarType[type].toLowerCase();
}

function label(field: DescField | DescExtension): string {
  if (field.fieldKind === 'map' || field.oneof) return '';
  return field.fieldKind === 'list' ? 'repeated ' : 'optional ';
}

function options(field: DescField | DescExtension): string {
  const parts: string[] = [];
  if (field.proto.defaultValue) parts.push(`default = ${field.proto.defaultValue}`);
  if (field.proto.options?.deprecated) parts.push('deprecated = true');
  if (field.kind === 'field' && hasOption(field, predefined)) {
    for (const { id, message, expression } of getOption(field, predefined).cel) {
      const entries = Object.entries({ id, message, expression }).filter(([, text]) => text);
      parts.push(`(predefined).cel = {${entries.map(([name, text]) => `${name}: ${JSON.stringify(text)}`).join(', ')}}`);
    }
  }
  return parts.length === 0 ? '' : ` [${parts.join(', ')}]`;
}

function printField(field: DescField | DescExtension): string {
  return `${label(field)}${typeName(field)} ${field.name} = ${field.number}${options(field)};`;
}

function ranges(list: readonly { readonly start: number; readonly end: number }[], endIsInclusive: boolean): string {
  return list
    .map(({ start, end }) => {
      const last = endIsInclusive ? end : end - 1;
      if (!endIsInclusive && end === FIELD_NUMBER_MAX) return `${start} to max`;
      return start === last ? String(start) : `${start} to ${last}`;
    })
    .join(', ');
}

function printEnum(desc: DescEnum): string {
  const lines = desc.values.map((value) => `${value.name} = ${value.number};`);
  if (desc.proto.reservedRange.length > 0) lines.push(`reserved ${ranges(desc.proto.reservedRange, true)};`);
  if (desc.proto.reservedName.length > 0)
    lines.push(`reserved ${desc.proto.reservedName.map((name) => `"${name}"`).join(', ')};`);
  return `enum ${desc.name} {\n${lines.join('\n')}\n}`;
}

function printMessage(desc: DescMessage): string {
  const lines: string[] = [];
  for (const member of desc.members) {
    if (member.kind === 'field') lines.push(printField(member));
    else lines.push(`oneof ${member.name} {\n${member.fields.map(printField).join('\n')}\n}`);
  }
  const { reservedRange, reservedName, extensionRange } = desc.proto;
  if (reservedRange.length > 0) lines.push(`reserved ${ranges(reservedRange, false)};`);
  if (reservedName.length > 0) lines.push(`reserved ${reservedName.map((name) => `"${name}"`).join(', ')};`);
  if (extensionRange.length > 0) lines.push(`extensions ${ranges(extensionRange, false)};`);
  lines.push(...desc.nestedEnums.map(printEnum), ...desc.nestedMessages.map(printMessage));
  return `message ${desc.name} {\n${lines.join('\n')}\n}`;
}

const { goPackage, javaPackage, javaOuterClassname } = file.proto.options ?? {};
process.stdout.write(
  `${[
    HEADER,
    'syntax = "proto2";',
    `package ${file.proto.package};`,
    file.proto.dependency.map((name) => `import "${name}";`).join('\n'),
    `option go_package = "${goPackage}";\noption java_multiple_files = true;\noption java_outer_classname = "${javaOuterClassname}";\noption java_package = "${javaPackage}";`,
    ...file.extensions.map((extension) => `extend .${extension.extendee.typeName} {\n${printField(extension)}\n}`),
    ...file.enums.map(printEnum),
    ...file.messages.map(printMessage),
  ].join('\n\n')}\n`,
);
