import {
  createRegistry,
  type DescFile,
  type DescService,
  type MessageInitShape,
  type Registry,
  toBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, type ConnectRouter } from '@connectrpc/connect';
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from '#proto/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#proto/grpc/reflection/v1alpha/reflection_pb.js';

/** Registers gRPC reflection, v1 and v1alpha, about `services` and itself. */
export function registerReflection(router: ConnectRouter, services: readonly DescService[]): void {
  const all = [...services, ServerReflection, ServerReflectionAlpha];
  const files = new Map<string, DescFile>();
  for (const service of all) addFile(files, service.file);
  const registry = createRegistry(...files.values());
  const names = [...new Set(all.map((service) => service.typeName))].sort();
  async function* serverReflectionInfo(requests: AsyncIterable<Asked>): AsyncGenerator<Answer> {
    for await (const request of requests) {
      yield {
        validHost: request.host,
        originalRequest: request as never,
        messageResponse: answer(request, files, registry, names),
      };
    }
  }
  router.service(ServerReflection, { serverReflectionInfo });
  router.service(ServerReflectionAlpha, { serverReflectionInfo: serverReflectionInfo as never });
}

/** Both versions have the same fields. */
type Asked = Pick<ServerReflectionRequest, 'host' | 'messageRequest'>;
type Answer = MessageInitShape<typeof ServerReflectionResponseSchema>;
type Content = NonNullable<Answer['messageResponse']>;

function addFile(files: Map<string, DescFile>, file: DescFile): void {
  if (files.has(file.proto.name)) return;
  for (const dependency of file.dependencies) addFile(files, dependency);
  files.set(file.proto.name, file); // after what it needs
}

function answer(
  { messageRequest }: Asked,
  files: ReadonlyMap<string, DescFile>,
  registry: Registry,
  names: readonly string[],
): Content {
  switch (messageRequest.case) {
    case 'listServices':
      return { case: 'listServicesResponse', value: { service: names.map((name) => ({ name })) } };
    case 'fileByFilename':
      return fileAnswer(files.get(messageRequest.value), `file ${messageRequest.value}`);
    case 'fileContainingSymbol':
      return fileAnswer(fileOf(registry, messageRequest.value), `symbol ${messageRequest.value}`);
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = messageRequest.value;
      const found = extensionsOf(registry, containingType).find((extension) => extension.number === extensionNumber);
      return fileAnswer(found?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case 'allExtensionNumbersOfType': {
      const baseTypeName = messageRequest.value;
      if (!registry.getMessage(baseTypeName)) return notFound(`type ${baseTypeName}`);
      const extensionNumber = extensionsOf(registry, baseTypeName).map((extension) => extension.number);
      return { case: 'allExtensionNumbersResponse', value: { baseTypeName, extensionNumber } };
    }
    case undefined:
      return { case: 'errorResponse', value: { errorCode: Code.InvalidArgument, errorMessage: 'the request asks nothing' } };
  }
}

/** The file of a type or service, or of what is declared inside one: a method, a field, an enum value. */
function fileOf(registry: Registry, symbol: string): DescFile | undefined {
  const found = registry.get(symbol);
  if (found) return found.file;
  const parent = symbol.slice(0, Math.max(0, symbol.lastIndexOf('.')));
  const name = symbol.slice(parent.length + 1);
  const owner = registry.get(parent);
  switch (owner?.kind) {
    case 'service':
      return owner.methods.some((method) => method.name === name) ? owner.file : undefined;
    case 'message':
      return owner.fields.some((field) => field.name === name) ? owner.file : undefined;
    default:
      return undefined;
  }
}

function extensionsOf(registry: Registry, typeName: string) {
  return [...registry]
    .filter((type) => type.kind === 'extension')
    .filter((extension) => extension.extendee.typeName === typeName);
}

/** The file and all it imports, so that a client needs one question. */
function fileAnswer(file: DescFile | undefined, what: string): Content {
  if (!file) return notFound(what);
  const closure = new Map<string, DescFile>();
  addFile(closure, file);
  const fileDescriptorProto = [...closure.values()].reverse().map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } };
}

function notFound(what: string): Content {
  return { case: 'errorResponse', value: { errorCode: Code.NotFound, errorMessage: `no ${what}` } };
}
