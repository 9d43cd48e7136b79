"""Download images and videos from URLs, each of them once.

Only valid files are cached, so that the next run retries a URL that returned an error page or an
incomplete image. IP addresses are checked after host names are resolved, for the URL and for every
redirect: a URL in a data set must not reach this machine or its network unless the user allows it.
"""

import contextlib
import functools
import hashlib
import http.client
import io
import ipaddress
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..cache.directory import cache_directory
from ..errors import ImageError, Problem, VideoError
from ..records import MediaKind
from .decoding import MAX_PIXELS, decoding_error
from .video_decoding import video_problem

__all__ = [
    "IMAGES",
    "VIDEOS",
    "MediaFiles",
    "PrivateAddressError",
    "download",
    "downloaded",
    "masked_url",
]

SECONDS = 30
"""Timeout for connecting and for each read."""
TOTAL_SECONDS = 120
"""Timeout for an image, from the connection to the last byte, including redirects."""
TOTAL_SECONDS_OF_VIDEO = 900
"""The same for a video."""
MAX_BYTES = 64_000_000
"""The maximum size of an encoded image."""
MAX_BYTES_OF_VIDEO = 1_000_000_000
"""The maximum size of an encoded video."""
CHUNK = 1 << 16
SCHEMES = ("http", "https")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses whose last 32 bits are an IPv4 address."""
IPV4_BITS = 0xFFFFFFFF


class PrivateAddressError(OSError):
    """A URL leads to an address that is not public, such as this machine or the local network."""


@dataclass(frozen=True)
class MediaFiles:
    """A kind of files that can be downloaded.

    Attributes:
        kind: What they are.
        check: Raises `OSError` if the content, with its declared type, is not such a file.
        max_bytes: The maximum size of a file.
        seconds: Timeout from the connection to the last byte, including redirects.
        error: The error of a row whose file cannot be downloaded.
    """

    kind: MediaKind
    check: Callable[[bytes, str], None]
    max_bytes: int
    seconds: float
    error: type[ImageError]


def download(url: str, *, private: bool = False, media: MediaFiles | None = None) -> bytes:
    """Return the encoded image or video at a URL, from the cache if it was downloaded before.

    Args:
        url: An http or https URL.
        private: Whether loopback, private and link-local addresses are allowed.
        media: The kind of file; `None` for an image.

    Raises:
        PrivateAddressError: If the URL or a redirect leads to such an address and they are not
            allowed.
        OSError: If the download fails, times out, is incomplete or too large, or is not such a
            file.
    """
    media = media or IMAGES
    # earlier releases used another directory, whose files may be error pages
    cached = cache_directory() / f"{media.kind}s" / hashlib.sha256(url.encode()).hexdigest()
    if cached.is_file():
        return cached.read_bytes()
    try:
        _check_url(url)
        request = urllib.request.Request(
            url, headers={"User-Agent": "unidpo-mm", "Accept-Encoding": "identity"}
        )
        content, content_type = _response(request, media, private=private)
    except (ValueError, http.client.HTTPException) as error:
        raise OSError(str(error) or type(error).__name__) from error
    media.check(content, content_type)
    cached.parent.mkdir(parents=True, exist_ok=True)
    scratch = cached.with_name(
        f"{cached.name}.{os.getpid()}.part"
    )  # two workers may download the same image
    scratch.write_bytes(content)
    scratch.replace(cached)
    return content


def downloaded(url: str, where: str, media: MediaFiles, *, private: bool) -> bytes:
    """Return the encoded image or video of a row from a URL; see `download`.

    Args:
        url: The URL.
        where: File, row and field, for messages.
        media: The kind of file.
        private: Whether loopback, private and link-local addresses are allowed.

    Raises:
        ImageError: If it cannot be downloaded; VideoError for a video.
    """
    kind = media.kind
    name = f"the {kind} '{masked_url(url)}'"
    try:
        return download(url, private=private, media=media)
    except PrivateAddressError as error:
        problem = f"{name} is not downloaded ({error})"
        remedy = (
            f"Download the {kind} and use its path, or set "
            "data.images.fetch_private_addresses to true"
        )
        raise media.error(Problem(where, problem, remedy)) from error
    except OSError as error:
        problem = f"{name} cannot be downloaded ({error})"
        remedy = f"Correct the URL, or download the {kind}s and use their paths"
        raise media.error(Problem(where, problem, remedy)) from error


def masked_url(url: str) -> str:
    """Return a URL without the user name and password in it."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def _check_url(url: str) -> None:
    """Refuse a URL that is not http or https, or that contains a password."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in SCHEMES:
        raise OSError(f"only {' and '.join(SCHEMES)} URLs can be downloaded")
    if "@" in parts.netloc:
        raise OSError("URLs with a user name or a password cannot be downloaded")


def _response(
    request: urllib.request.Request, media: MediaFiles, *, private: bool
) -> tuple[bytes, str]:
    """Return the body and the content type of the HTTP response."""
    with _Connections(media.seconds, private=private) as connections:
        opener = urllib.request.build_opener(connections, _Redirects)
        try:
            with opener.open(request, timeout=SECONDS) as response:
                return _body(response, media.max_bytes), str(
                    response.headers.get("Content-Type") or "unknown"
                )
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None)  # urllib wraps the error
            if isinstance(reason, OSError):
                raise reason from error
            raise
        finally:
            if connections.expired:  # reading may also end without an error
                raise OSError(f"it took longer than {media.seconds:g} s")


def _body(response: Any, max_bytes: int) -> bytes:
    """Return the body of an HTTP response."""
    announced = response.headers.get("Content-Length")
    pieces, size = [], 0
    while piece := response.read(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise OSError(f"it is larger than {max_bytes // 1_000_000} MB")
    if announced is not None and announced.isdigit() and size != int(announced):
        raise OSError(f"only {size:,} of {int(announced):,} bytes were received")
    return b"".join(pieces)


def _check_image(content: bytes, content_type: str) -> None:
    """Refuse content that cannot be decoded as an image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height <= MAX_PIXELS:  # `UrlImage` refuses larger ones
                image.load()
    except Image.DecompressionBombError:
        return  # larger than `MAX_PIXELS`
    except Exception as error:  # decoders raise errors of many kinds
        text = f"the content is not an image: {content_type}, {decoding_error(error)}"
        raise OSError(text) from error


def _check_video(content: bytes, content_type: str) -> None:
    """Refuse content that cannot be read as a video."""
    if reason := video_problem(content):
        raise OSError(f"the content is not a video: {content_type}, {reason}")


IMAGES = MediaFiles("image", _check_image, MAX_BYTES, TOTAL_SECONDS, ImageError)
VIDEOS = MediaFiles("video", _check_video, MAX_BYTES_OF_VIDEO, TOTAL_SECONDS_OF_VIDEO, VideoError)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https URLs only."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Connections(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens connections to allowed addresses, and closes them after a timeout."""

    def __init__(self, seconds: float, *, private: bool) -> None:
        super().__init__()
        self.private, self.expired = private, False
        self.sockets: list[socket.socket] = []
        self.timer = threading.Timer(seconds, self.expire)
        self.timer.daemon = True

    def __enter__(self) -> "_Connections":
        self.timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.timer.cancel()
        for connection in self.sockets:
            connection.close()

    def expire(self) -> None:
        self.expired = True
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def http_open(self, req: Any) -> Any:
        return self._opened(http.client.HTTPConnection, req)

    def https_open(self, req: Any) -> Any:
        return self._opened(http.client.HTTPSConnection, req)

    def _opened(self, connection_class: Any, request: Any) -> Any:
        """Return the response to a request."""
        private = self.private
        if request.has_proxy():
            # the proxy may have a private address, but the target must not
            target = urlsplit(request.full_url).hostname or ""
            with contextlib.suppress(socket.gaierror):
                _addresses(target, None, private=private)
            private = True

        def connection(host: str, **options: Any) -> Any:
            http_connection = connection_class(host, **options)
            http_connection._create_connection = functools.partial(self._connect, private)
            return http_connection

        return self.do_open(connection, request)

    def _connect(
        self,
        private: bool,
        address: tuple[str, int],
        timeout: Any = SECONDS,
        source_address: Any = None,
    ) -> socket.socket:
        """Return a connection to one of the addresses of a host after checking all of them."""
        host, port = address
        failure = OSError(f"'{host}' has no address")
        for resolved in _addresses(host, port, private=private):
            # connect to the checked address: the name could resolve to another one next time
            try:
                connection = socket.create_connection((resolved, port), timeout, source_address)
            except OSError as error:
                failure = error
                continue
            self.sockets.append(connection.dup())  # TLS takes over the socket itself
            if self.expired:
                self.expire()
            return connection
        raise failure


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
    """Return whether an IP address is public."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & IPV4_BITS)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast
