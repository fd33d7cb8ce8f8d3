import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';

/** Types of messages on the sender's side: a message, or a plain object from which a message is created. */
export type RequestInit<M extends DescMethod> = MessageInitShape<M['input']>;
export type ResponseInit<M extends DescMethod> = MessageInitShape<M['output']>;
/** Types of messages on the receiver's side. */
export type Request<M extends DescMethod> = MessageShape<M['input']>;
export type Response<M extends DescMethod> = MessageShape<M['output']>;

/** Converts a protobuf-es method to grpc-js's form. */
export function methodDefinition<M extends DescMethod>(method: M) {
  const input = codec<M['input']>(method.input);
  const output = codec<M['output']>(method.output);
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: input.serialize,
    requestDeserialize: input.deserialize,
    responseSerialize: output.serialize,
    responseDeserialize: output.deserialize,
    originalName: method.localName,
  };
}

/** Definitions of a service's methods, keyed by camelCase name. */
export function serviceDefinition(service: DescService): Record<string, ReturnType<typeof methodDefinition>> {
  return Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinition(method)]));
}

/**
 * Serializer for messages that are already bytes. grpc-js would serialize late and hide errors, so both sides serialize
 * a message where it is created.
 */
export const identity = (bytes: Buffer): Buffer => bytes;

function codec<D extends DescMessage>(schema: D) {
  return {
    serialize(message: MessageInitShape<D>): Buffer {
      const bytes = toBinary(schema, create(schema, message), { writeUnknownFields: false });
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    deserialize: (bytes: Buffer): MessageShape<D> => fromBinary(schema, bytes, { readUnknownFields: false }),
  };
}
