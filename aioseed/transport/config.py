"""The ``transport`` section of a configuration: how to be reached, by whom, and within which bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.transport.channel import DEFAULT_MAX_MESSAGE_BYTES

Seconds = Annotated[float, Field(gt=0, le=3600)]


class TlsConfig(BaseModel):
    """Say which certificate listeners at ``wss://`` and ``grpcs://`` show. Files are read again when they change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    self_signed: bool = False
    """Make a certificate into the run directory and know it by its fingerprint (`--tls self-signed`)."""
    certificate: Path | None = None
    """PEM file: the certificate, then what leads from it to its authority."""
    key: Path | None = None
    """PEM file: the private key, which only its owner may read."""
    client_ca: Path | None = None
    """PEM file: authorities of client certificates. Given, an actor must show one (mutual TLS) beside its token."""

    @model_validator(mode="after")
    def _belongs_together(self) -> TlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("transport.tls.certificate and transport.tls.key belong together")
        if self.self_signed and self.certificate is not None:
            raise ValueError("transport.tls has either self_signed or a certificate")
        return self

    @property
    def given(self) -> bool:
        """Say whether there is a certificate to show."""
        return self.self_signed or self.certificate is not None


class LimitsConfig(BaseModel):
    """Bound what a peer can cost. What goes beyond is refused or cut, and counted under ``transport/``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    handshake_timeout_s: Seconds = 5.0
    """Longest time from an accepted connection to an open channel, TLS included."""
    max_header_bytes: Annotated[int, Field(ge=512, le=2**16)] = 8192
    """Largest head of an HTTP request, and largest metadata of a gRPC call."""
    max_unauthenticated: Annotated[int, Field(ge=1)] = 256
    """Connections that may be open at once without having shown a token; more are dropped when they are accepted."""
    max_connections: Annotated[int, Field(ge=1)] = 8192
    """Channels of a listener; a gRPC listener counts connections, those without a token too."""
    connections_per_token: Annotated[int, Field(ge=1)] = 4096
    """Channels that may be open with one token."""
    control_frames_per_s: Annotated[float, Field(gt=0)] = 20.0
    """PING and PONG frames of WebSocket and HTTP/2 that a peer may send in a second; then it is cut."""
    received_bytes_per_s: Annotated[float, Field(ge=1024)] = float(2**30)
    """Payload that a channel may send in a second; one that sends more is read more slowly."""
    send_buffer_bytes: Annotated[int, Field(ge=2**16)] = 4 * 2**20
    """Unsent bytes at which a channel whose peer does not read is cut at once."""
    stall_timeout_s: Seconds = 10.0
    """A channel is cut whose unsent bytes have not become fewer for so long, nor (over gRPC) a write ended."""


class TransportConfig(BaseModel):
    """Say how actors reach their learner, who may, and what a message may weigh."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[
        str, Field(description="For the local actors of `aioseed train`: websocket, grpc, memory, or a plug-in's name.")
    ] = "websocket"
    max_message_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = DEFAULT_MAX_MESSAGE_BYTES
    allow_insecure: bool = False
    """Listen to other machines without a token or without TLS (`--insecure-listen`), on a network that is all yours."""
    allowed_origins: frozenset[str] = frozenset()
    """Web origins, such as ``https://lab.example.org``, whose pages may be actors; none by default."""
    tls: TlsConfig = TlsConfig()
    limits: LimitsConfig = LimitsConfig()
