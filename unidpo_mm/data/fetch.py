"""Downloads images from URLs, if the user allows it, once each.

Only what decodes as an image is kept, so an error page or half a body is tried again by the next
run. Addresses are checked after the host name is resolved, and again after every redirect: a URL in
a data set must not reach this machine or its network unless the user allows that.
"""

import contextlib
import functools
import hashlib
import http.client
import io
import ipaddress
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..cache.directory import cache_directory

__all__ = ["PrivateAddressError", "fetched"]

SECONDS = 30
"""Longest wait for a connection or for the next bytes."""
TOTAL_SECONDS = 120
"""Longest time for one image, from the connection to its last byte, redirects included."""
MAX_BYTES = 64_000_000
"""Largest image as it is sent."""
CHUNK = 1 << 16
SCHEMES = ("http", "https")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses whose last 32 bits are an IPv4 address."""
IPV4_BITS = 0xFFFFFFFF


class PrivateAddressError(OSError):
    """A URL leads to this machine, to the local network, or to another address without a route."""


def fetched(url: str, *, private: bool = False) -> bytes:
    """Return the image at a URL, from disk if it was downloaded before.

    Args:
        url: An http or https URL.
        private: Loopback, private and link-local addresses are allowed.

    Raises:
        PrivateAddressError: If the URL or a redirect leads to such an address and they are not
            allowed.
        OSError: If it cannot be reached in time, is too large, breaks off, or is not an image.
    """
    kept = _place(url)
    if kept.is_file():
        return kept.read_bytes()
    _check_url(url)
    try:
        request = urllib.request.Request(
            url, headers={"User-Agent": "unidpo-mm", "Accept-Encoding": "identity"}
        )
        content, kind = _downloaded(request, private=private)
    except (ValueError, http.client.HTTPException) as error:
        raise OSError(str(error) or type(error).__name__) from error
    _check_image(content, kind)
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_name(f"{kept.name}.{os.getpid()}.part")  # two workers may fetch the same
    scratch.write_bytes(content)
    scratch.replace(kept)
    return content


def _place(url: str) -> Path:
    # not the directory of earlier releases, which kept error pages
    return cache_directory() / "images" / hashlib.sha256(url.encode()).hexdigest()


def _check_url(url: str) -> None:
    """Refuse what is not a plain URL of the web.

    Raises:
        OSError: With the reason.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise OSError(str(error)) from error
    if parts.scheme.lower() not in SCHEMES:
        raise OSError(f"only {' and '.join(SCHEMES)} URLs are downloaded")
    if "@" in parts.netloc:
        raise OSError("URLs with a user name or a password are not downloaded")


def _downloaded(request: urllib.request.Request, *, private: bool) -> tuple[bytes, str]:
    """Return the body of a response and its content type."""
    with _watch() as watch:
        opener = urllib.request.build_opener(
            _Http(watch, private=private), _Https(watch, private=private), _Redirects
        )
        try:
            with opener.open(request, timeout=SECONDS) as response:
                return _body(response), str(response.headers.get("Content-Type") or "unknown")
        except (OSError, http.client.HTTPException, ValueError) as error:
            if watch.expired:
                raise OSError(f"it took longer than {TOTAL_SECONDS} s") from error
            reason = getattr(error, "reason", None)  # urllib wraps what went wrong
            if isinstance(reason, OSError):
                raise reason from error
            raise
        finally:
            if watch.expired:  # the reader may have taken the closed socket for the end
                raise OSError(f"it took longer than {TOTAL_SECONDS} s")


def _body(response: Any) -> bytes:
    """Return the whole body of a response.

    Raises:
        OSError: If it is too large or shorter than announced.
    """
    announced = response.headers.get("Content-Length")
    pieces, size = [], 0
    while piece := response.read(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise OSError(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    if announced is not None and announced.isdigit() and size != int(announced):
        raise OSError(f"it breaks off after {size:,} of {int(announced):,} bytes")
    return b"".join(pieces)


def _check_image(content: bytes, kind: str) -> None:
    """Refuse what does not decode as an image.

    Raises:
        OSError: With the reason.
    """
    from PIL import Image

    from .decoding import decoding_error
    from .images import MAX_PIXELS

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height <= MAX_PIXELS:  # larger ones are refused when opened
                image.load()
    except Image.DecompressionBombError:
        return  # an image, and refused when it is opened
    except Exception as error:  # decoders raise what they like
        text = f"what was sent is not an image: {kind}, {decoding_error(error)}"
        raise OSError(text) from error


class _Watch:
    """Closes the connections of one download when its time is over."""

    def __init__(self) -> None:
        self.expired = False
        self.sockets: list[socket.socket] = []
        self.timer = threading.Timer(TOTAL_SECONDS, self.expire)
        self.timer.daemon = True

    def add(self, connection: socket.socket) -> None:
        self.sockets.append(connection.dup())  # TLS takes the socket itself over
        if self.expired:
            self.expire()

    def expire(self) -> None:
        self.expired = True
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _watch() -> Iterator[_Watch]:
    watch = _Watch()
    watch.timer.start()
    try:
        yield watch
    finally:
        watch.timer.cancel()
        for connection in watch.sockets:
            connection.close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https URLs alone."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Checked:
    """Opens connections to addresses that may be reached, and has them watched."""

    def __init__(self, watch: _Watch, *, private: bool) -> None:
        super().__init__()
        self.watch, self.private = watch, private

    def connect(self, kind: Any, request: Any) -> Any:
        """Return the response to a request."""
        if request.has_proxy():
            # a proxy may have a private address and resolves names itself; the target may not
            target = urlsplit(request.full_url).hostname or ""
            with contextlib.suppress(socket.gaierror):
                _addresses(target, None, private=self.private)
            make = functools.partial(_create, self.watch, True)
        else:
            make = functools.partial(_create, self.watch, self.private)

        def connection(host: str, **options: Any) -> Any:
            made = kind(host, **options)
            made._create_connection = make
            return made

        return self.do_open(connection, request)  # type: ignore[attr-defined] # of the handler


class _Http(_Checked, urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.connect(http.client.HTTPConnection, req)


class _Https(_Checked, urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        return self.connect(http.client.HTTPSConnection, req)


def _create(
    watch: _Watch,
    private: bool,
    address: tuple[str, int],
    timeout: Any = SECONDS,
    source_address: Any = None,
) -> socket.socket:
    """Return a connection to one of the addresses of a host, which are all checked."""
    host, port = address
    failure: OSError | None = None
    for resolved in _addresses(host, port, private=private):
        # to the address that was checked: the name could resolve to another one the next time
        try:
            connection = socket.create_connection((resolved, port), timeout, source_address)
        except OSError as error:
            failure = error
            continue
        watch.add(connection)
        return connection
    raise failure or OSError(f"'{host}' has no address")


def _addresses(host: str, port: int | None, *, private: bool) -> list[str]:
    """Return the addresses of a host.

    Raises:
        PrivateAddressError: If one of them is not public and `private` is false.
    """
    resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in resolved))
    for address in addresses:
        if not private and not _is_public(address):
            raise PrivateAddressError(f"'{host}' has the private address {address}")
    return addresses


def _is_public(address: str) -> bool:
    """Return whether an address belongs to the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & IPV4_BITS)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast
