"""A gRPC client in Python: tokens, steps, a deadline, cancellation and an error.

pip install grpcio-tools; python examples/grpc_client.py [127.0.0.1:8081]

`grpc.protos_and_services` generates the stubs from proto/ at run time; `python -m grpc_tools.protoc` writes them to
files.
"""

import pathlib
import sys

import grpc

sys.path.append(str(pathlib.Path(__file__).parents[1] / "proto"))
messages, services = grpc.protos_and_services("ptp/v1/generation.proto")
common = grpc.protos("ptp/v1/common.proto")
rpc = grpc.protos("google/rpc/status.proto")
details = grpc.protos("google/rpc/error_details.proto")

channel = grpc.insecure_channel(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8081")
stub = services.GenerationServiceStub(channel)
model = stub.GetModel(messages.GetModelRequest(), timeout=5)
print(f"{model.model_id}, {model.context_length} tokens of context")

request = messages.GenerateRequest(text="export interface User {", max_tokens=60, seed=1)
request.sampling.CopyFrom(common.SamplingParameters(temperature=0.7))
tokens = steps = 0
for answer in stub.Generate(request, timeout=30):
    print(answer.text, end="", flush=True)
    tokens += len(answer.tokens)
    steps = answer.step.step + 1
print(f"\n{tokens} tokens in {steps} steps")

# Cancelling frees the call's resources on the server.
call = stub.Generate(messages.GenerateRequest(text="class ", max_tokens=500))
next(call)
call.cancel()

request.sampling.temperature = 3
try:
    list(stub.Generate(request))
except grpc.RpcError as error:
    status = rpc.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        bad = details.BadRequest()
        if detail.Unpack(bad):
            violation = bad.field_violations[0]
            print(f"{error.code().name} in {violation.field}: {violation.description}")
channel.close()
