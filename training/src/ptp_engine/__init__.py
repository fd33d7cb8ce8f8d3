"""Runs models on PyTorch for the server: `ptp-engine` serves a target or a drafter to the verifier or the drafter
service, which connect to it with the gRPC service of proto/ptp/v1/engine.proto.
"""
