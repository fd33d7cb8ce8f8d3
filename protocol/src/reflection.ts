import { type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { Server } from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { service as healthService } from 'grpc-health-check';

type PackageDefinition = ConstructorParameters<typeof ReflectionService>[0];

const health = 'grpc.health.v1.Health';

/**
 * Adds gRPC server reflection (v1 and v1alpha), through which clients such as grpcurl list the given services and the
 * standard health service.
 */
export function addReflection(server: Server, services: readonly DescService[]): void {
  const ours = new Set<DescFile>();
  for (const service of services) collect(service.file, ours);
  const fileDescriptorProtos = [...ours].map((file) => Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)));
  const healthFiles = Object.values(healthService).flatMap(({ requestType }) => requestType.fileDescriptorProtos);
  // The library reads only the descriptors of a package definition's members.
  const members = { ours: { fileDescriptorProtos }, health: { fileDescriptorProtos: healthFiles } };
  new ReflectionService(members as unknown as PackageDefinition, {
    services: [...services.map(({ typeName }) => typeName), health],
  }).addToServer(server);
}

function collect(file: DescFile, files: Set<DescFile>): void {
  if (files.has(file)) return;
  files.add(file);
  for (const dependency of file.dependencies) collect(dependency, files);
}
