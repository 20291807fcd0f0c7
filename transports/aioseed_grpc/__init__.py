"""gRPC as a transport of aioseed: ``grpc://host:port``, on grpc.aio. Needs the extra ``grpc``."""

from __future__ import annotations

from aioseed.errors import PluginError
from aioseed_grpc.complaints import nothing_is_said_of_bytes
from aioseed_grpc.polling import nothing_is_written, one_thread_reads, the_system_resolves

try:
    with one_thread_reads(), nothing_is_written(), the_system_resolves():
        import grpc  # noqa: F401
except ImportError as error:
    raise PluginError(
        'the gRPC transport needs grpcio: pip install "aioseed[grpc]"',
        group="aioseed.transports",
        name="grpc",
        extra="grpc",
    ) from error

from aioseed_grpc.transport import GrpcTransport

nothing_is_said_of_bytes()

__all__ = ["GrpcTransport"]
