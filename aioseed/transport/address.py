"""URLs of listeners: read strictly, so that a token or a path in one is an error instead of a surprise."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """Name one listener on a network."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Return ``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the URL."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        """Say whether only this machine can reach the host."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`, a name or a numeric address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def peer_name(host: str, port: int) -> str:
    """Return the address of a peer as URLs have it; one of IPv4 is that also where a socket of IPv6 took it in."""
    plain = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in plain else f"{plain}:{port}"


def parse_url(url: str, schemes: Collection[str]) -> Address:
    """Return the address that `url` names: a scheme, a host and a port, nothing else.

    Raises:
        ValueError: The URL has another scheme, lacks host or port, or carries a path, a query or user information.
    """
    parts = urlsplit(url)
    if parts.scheme not in schemes:
        raise ValueError(f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)} is needed")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a secret does not belong into a URL")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("nothing may follow the port")
    if not parts.hostname or parts.port is None:
        raise ValueError("a host and a port are needed")
    return Address(parts.scheme, parts.hostname, parts.port)


async def resolve(address: Address) -> str:
    """Return the numeric address to listen on: the first that the host has, IPv4 before IPv6. Safe to cancel.

    One address, since a name with two would otherwise get two different free ports for port 0.

    Raises:
        OSError: The host is unknown.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family_first = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(family_first[0][4][0])
