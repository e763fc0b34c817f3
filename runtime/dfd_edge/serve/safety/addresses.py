"""Addresses that users may paste, without reaching into the operator's network.

Server-side request forgery: a page that fetches for strangers can be sent to routers, databases
and the credentials service of a cloud. So nothing is fetched unless the operator names the host;
even then the host's addresses are checked, and the connection goes to a checked address itself, so
that a second answer of the name server changes nothing (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from dfd_edge.errors import SourceError, UnreachableError, UsageError
from dfd_edge.sources.address import redact
from dfd_edge.text import printable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_MAX_ADDRESS = 2048
_ENTRY = re.compile(r"^(?P<host>\*|(?:\*\.)?[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?$")
#: Beyond what Python calls "not global", which differs from version to version: the special-purpose
#: registries of IANA, tunnels that end inside, and the host of Azure's virtual machines.
_NEVER = tuple(
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",
        *("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32"),
        *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefusedError(SourceError):
    """The operator does not let this address be fetched, or it leads where nothing may be."""


class FileTooLargeError(SourceError):
    """The file is larger than the operator allows."""


def is_public(address: IpAddress) -> bool:
    """Returns whether an IP address belongs to the public internet.

    IPv4 addresses inside IPv6 ones (mapped, NAT64) count as what they carry.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    listed = any(address in block for block in _NEVER if block.version == address.version)
    return address.is_global and not address.is_multicast and not listed


def resolve(host: str, port: int) -> list[IpAddress]:
    """Returns the addresses of a host in the system's order.

    Raises:
        OSError: There are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


def connect(address: IpAddress, port: int, timeout_s: float) -> socket.socket:
    """Opens a connection to an IP address, without asking a name server.

    Raises:
        OSError: It cannot be opened.
    """
    return socket.create_connection((str(address), port), timeout_s)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Hosts whose files may be fetched.

    Attributes:
        allowed: Entries `HOST`, `*.DOMAIN` (hosts below a domain) or `*` (every public host), each
            with `:PORT` where it is not the scheme's own.
        max_bytes: Larger files are refused.
        timeout_s: For the whole fetch, redirects included.
        resolve, connect: As the functions of this module.
        trusted: Certificates that are accepted.

    Raises:
        UsageError: An entry is none of these.
    """

    allowed: tuple[str, ...] = ()
    max_bytes: int = 1 << 30
    timeout_s: float = 300.0
    resolve: Callable[[str, int], list[IpAddress]] = resolve
    connect: Callable[[IpAddress, int, float], socket.socket] = connect
    trusted: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def __post_init__(self) -> None:
        for entry in self.allowed:
            if not _ENTRY.match(entry.lower()):
                raise UsageError(
                    f"--allow-addresses {entry!r}: give HOST, *.DOMAIN or *, each with :PORT where "
                    "it is not 80 or 443, separated by commas"
                )

    def check(self, address: str) -> SplitResult:
        """Refuses addresses by their text: scheme, form, host and port.

        Returns:
            The parts of the address.

        Raises:
            AddressRefusedError: It may not be fetched.
        """
        name = printable(redact(address))[:_MAX_ADDRESS]
        if len(address) > _MAX_ADDRESS or not address.isascii() or not _is_plain(address):
            raise AddressRefusedError(
                name, "is no address that can be fetched", "percent-encode what is not ASCII"
            )
        try:
            parts = urlsplit(address)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise AddressRefusedError(name, "is no address that can be fetched") from None
        if parts.scheme not in _PORTS:
            raise AddressRefusedError(
                name,
                f"{parts.scheme or 'an address without a scheme'} is not fetched",
                "give an http or https address",
            )
        if not host or parts.username is not None or parts.password is not None:
            raise AddressRefusedError(
                name, "names no host, or a user", "give https://HOST/PATH without a user's name"
            )
        if not self._allows(host, port, parts.scheme):
            raise AddressRefusedError(
                name,
                "this service does not fetch from there",
                "upload the file, or let the operator name the host in --allow-addresses",
            )
        return parts

    def public_addresses(self, parts: SplitResult) -> list[IpAddress]:
        """Resolves the host of a checked address once, and refuses it unless all are public.

        Raises:
            AddressRefusedError: One is not. Its number is left out: it may be a secret of the
                operator's network.
            UnreachableError: There are none.
        """
        name = redact(parts.geturl())
        host = (parts.hostname or "").rstrip(".")
        try:
            found = self.resolve(host, port_of(parts))
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise UnreachableError(name, "no such host is known")
        if not all(is_public(address) for address in found):
            raise AddressRefusedError(
                name,
                "leads to a private, local or reserved network",
                "upload the file; an own camera is named by the operator with --camera",
            )
        return found

    def _allows(self, host: str, port: int | None, scheme: str) -> bool:
        for entry in self.allowed:
            match = _ENTRY.match(entry.lower())
            assert match is not None, "checked at the start"
            wanted, wanted_port = match["host"].strip("[]"), match["port"]
            named = wanted in ("*", host) or (
                wanted.startswith("*.") and host.endswith(wanted.removeprefix("*"))
            )
            usual = port in (None, _PORTS[scheme])
            if named and (usual if wanted_port is None else port == int(wanted_port)):
                return True
        return False


def port_of(parts: SplitResult) -> int:
    """Returns the port of a checked address."""
    return parts.port or _PORTS[parts.scheme]


def _is_plain(text: str) -> bool:
    """Returns whether no character is one that programs read differently."""
    return text.isprintable() and not set(text) & set(' \\"<>^`{|}')
