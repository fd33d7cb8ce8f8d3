"""Container health check: exits with status 0 if a worker is healthy, else 1.

usage: python -m ptp_engine.health_check ADDRESS      host:port or unix:/path
"""

import sys

import grpc

from .gen import health_pb2, health_pb2_grpc

LIMIT = 4
"""Time to wait for an answer, seconds."""


def is_healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT)
        except grpc.RpcError as error:
            print(error.details(), file=sys.stderr)
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


if __name__ == "__main__":
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)
