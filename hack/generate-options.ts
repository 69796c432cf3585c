import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import { ApplyOptionsSchema } from '../proto/gen/brokkr/v1/content_pb.js';
import { run } from './process.ts';

/** Numbers of fields of `FileDescriptorProto` and its parts, of which the paths of comments are made (descriptor.proto). */
const MESSAGES = 4;
const ENUMS = 5;
const PARTS = 2;

/** The reference page of the options of a stack, from the contract and its comments. */
export async function generateOptions(): Promise<ReadonlyMap<string, string>> {
  const file = await readContract(ApplyOptionsSchema.file.proto.name);
  return new Map([['docs/reference/options.md', page(file)]]);
}

/** The descriptor of a file with its comments, which the generated code does not have. */
async function readContract(name: string): Promise<FileDescriptorProto> {
  const folder = await mkdtemp(join(tmpdir(), 'brokkr-options-'));
  try {
    const output = join(folder, 'image.binpb');
    const { code, stderr } = await run('buf', ['build', '--as-file-descriptor-set', '--output', output]);
    if (code !== 0) throw new Error(`buf build failed\n${stderr}`);
    const file = fromBinary(FileDescriptorSetSchema, await readFile(output)).file.find((each) => each.name === name);
    if (!file) throw new Error(`the contract has no file ${name}`);
    return file;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function page(file: FileDescriptorProto): string {
  const options = file.messageType.findIndex(({ name }) => name === ApplyOptionsSchema.name);
  const used = (file.messageType[options]?.field ?? []).flatMap(({ typeName }) => typeName.split('.').at(-1) || []);
  const parts = [...new Set(used)];
  return `# Options of a stack

Generated from \`proto/brokkr/v1/content.proto\`. \`brokkr apply --options FILE\` sets exactly those of a file (YAML or JSON) and those of
\`--option NAME=VALUE\` beside it, all others to their defaults; \`brokkr set STACK NAME=VALUE\` changes single ones. REST has them as \`options\` of
a stack, spelled the same. A change makes a new generation.

${fieldTable(file, options)}
${parts.map((name) => section(file, name)).join('')}`;
}

function section(file: FileDescriptorProto, name: string): string {
  const message = file.messageType.findIndex((each) => each.name === name);
  if (message >= 0) return `\n## ${name}\n\n${commentOf(file, [MESSAGES, message])}\n\n${fieldTable(file, message)}`;
  const index = file.enumType.findIndex((each) => each.name === name);
  const values = file.enumType[index];
  return values ? `\n## ${name}\n\n${commentOf(file, [ENUMS, index])}\n\n${valueTable(file, index, values)}` : '';
}

function fieldTable(file: FileDescriptorProto, index: number): string {
  const message: DescriptorProto | undefined = file.messageType[index];
  const rows = (message?.field ?? []).map((field, at) => {
    return `| \`${field.name}\` | ${typeText(field)} | ${commentOf(file, [MESSAGES, index, PARTS, at])} |`;
  });
  return `| Name | Type | Meaning |\n|---|---|---|\n${rows.join('\n')}\n`;
}

function valueTable(file: FileDescriptorProto, index: number, { name, value }: EnumDescriptorProto): string {
  const prefix = `${name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()}_`;
  const rows = value.flatMap((each, at) => {
    const comment = commentOf(file, [ENUMS, index, PARTS, at]);
    const spelling = each.name.replace(prefix, '').toLowerCase();
    return each.number === 0 ? [`| not given | ${comment} |`] : [`| \`${spelling}\` | ${comment} |`];
  });
  return `| Value | Meaning |\n|---|---|\n${rows.join('\n')}\n`;
}

const SCALARS: Partial<Record<FieldDescriptorProto_Type, string>> = {
  [FieldDescriptorProto_Type.STRING]: 'text',
  [FieldDescriptorProto_Type.BOOL]: 'true or false',
  [FieldDescriptorProto_Type.UINT32]: 'number',
};

function typeText({ type, typeName, label }: FieldDescriptorProto): string {
  const name = typeName.split('.').at(-1) ?? '';
  const text = name === '' ? (SCALARS[type] ?? '') : `[${name}](#${name.toLowerCase()})`;
  return label === FieldDescriptorProto_Label.REPEATED ? `list of ${text}` : text;
}

function commentOf({ sourceCodeInfo }: FileDescriptorProto, path: readonly number[]): string {
  const location = sourceCodeInfo?.location.find((each) => each.path.join() === path.join());
  return (location?.leadingComments ?? '').trim().replaceAll(/\s+/g, ' ').replaceAll('|', '\\|');
}
