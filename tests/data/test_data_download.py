"""Downloads of images: what is kept, what is refused, and where connections may go."""

import contextlib
import dataclasses
import io
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from builders import gray_frames, make_image, write_video

import unidpo_mm.data.download as download_module
from unidpo_mm.config import SourceOptions
from unidpo_mm.data.download import IMAGES, PrivateAddressError, download
from unidpo_mm.data.load import ReadOptions, read_records
from unidpo_mm.errors import ImageError, VideoError

Serve = Callable[[BaseHTTPRequestHandler], None]


def png() -> bytes:
    stream = io.BytesIO()
    make_image(1).save(stream, "PNG")
    return stream.getvalue()


def sent(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> Serve:
    def serve(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if length != -1:
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return serve


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """Send a header byte by byte, each byte well within the timeout of a read."""
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        threading.Event().wait(0.05)


@pytest.fixture
def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, Serve], list[str]]]:
    """A server on this machine: its URL, what it sends by path, and the requested paths."""
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    answers: dict[str, Serve] = {}
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            with contextlib.suppress(OSError):  # the client is gone
                answers[self.path](self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, requests
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_image_is_downloaded_once(served: tuple[str, dict[str, Serve], list[str]]) -> None:
    url, answers, requests = served
    answers["/a.png"] = sent(png())
    answers["/moved"] = sent(b"", status=302, Location=f"{url}/a.png")
    answers["/unknown_length"] = sent(png(), length=-1)
    for path in ("/a.png", "/a.png", "/moved", "/unknown_length"):
        assert download(url + path, private=True) == png()
    assert requests == ["/a.png", "/moved", "/a.png", "/unknown_length"]


BROKEN: dict[str, tuple[Serve, str]] = {
    "an error page": (
        sent(b"<html>Busy</html>", Content_Type="text/html"), "not an image: text/html"),
    "nothing": (sent(b""), "not an image"),
    "half a body": (sent(png()[:200], length=len(png())), "only 200 of"),
    "half an image": (sent(png()[:200]), "not an image"),
    "half an image without length": (sent(png()[:200], length=-1), "not an image"),
    "an error": (sent(png(), status=404), "404"),
    "a redirect to ftp": (sent(b"", status=302, Location="ftp://127.0.0.1/a.png"), "only http"),
    "a redirect to a file": (sent(b"", status=302, Location="file:///etc/passwd"), "not allowed"),
    "a redirect to a password": (
        sent(b"", status=302, Location="http://me:secret@127.0.0.1/"), "a password"),
    "a loop": (sent(b"", status=302, Location="/x"), "redirect"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_incomplete_images_are_refused_and_retried(
    served: tuple[str, dict[str, Serve], list[str]], kind: str
) -> None:
    url, answers, _ = served
    answers["/x"], reason = BROKEN[kind]
    with pytest.raises(OSError, match=reason):
        download(f"{url}/x", private=True)
    answers["/x"] = sent(png())
    assert download(f"{url}/x", private=True) == png()


def test_time_and_size_are_limited(
    served: tuple[str, dict[str, Serve], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers, _ = served
    limits = dataclasses.replace(IMAGES, seconds=0.3)
    monkeypatch.setattr(download_module, "IMAGES", limits)
    answers["/slow"] = dripping
    with pytest.raises(OSError, match=r"took longer than 0\.3 s"):
        download(f"{url}/slow", private=True)
    limits = dataclasses.replace(limits, seconds=30, max_bytes=1000)
    monkeypatch.setattr(download_module, "IMAGES", limits)
    answers["/large"] = sent(b"x" * 200_000)
    with pytest.raises(OSError, match="larger than"):
        download(f"{url}/large", private=True)


def test_private_addresses_are_refused_after_names_are_resolved_and_after_redirects(
    served: tuple[str, dict[str, Serve], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers, requests = served
    answers["/a.png"] = sent(png())
    port = int(url.rpartition(":")[2])
    for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(PrivateAddressError, match="private address"):
            download(f"http://{host}:{port}/a.png")
    resolve = socket.getaddrinfo

    def resolved(host: str, *args: object, **options: object) -> object:
        names = {"inside.example": "10.0.0.1", "mixed.example": "127.0.0.1"}
        return resolve(names.get(host, host), *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    for host in ("inside.example", "mixed.example"):
        with pytest.raises(PrivateAddressError, match=f"'{host}' has the private address"):
            download(f"http://{host}:{port}/a.png")
    assert requests == []
    # a redirect from a public address: this server acts as it
    public = download_module._is_public
    monkeypatch.setattr(download_module, "_is_public", lambda a: a == "127.0.0.1" or public(a))
    answers["/moved"] = sent(b"", status=302, Location=f"http://inside.example:{port}/a.png")
    with pytest.raises(PrivateAddressError, match="inside"):
        download(f"{url}/moved")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),  # 93.184.216.34 behind NAT64
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # where clouds keep credentials
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert download_module._is_public(address) is public


def record_of(kind: str, url: str) -> dict[str, object]:
    return {"prompt": "?", "chosen": "a", "rejected": "b", f"{kind}s": [url]}


@pytest.mark.parametrize(("kind", "error"), [("image", ImageError), ("video", VideoError)])
def test_images_and_videos_at_urls_are_refused_in_the_same_words(
    served: tuple[str, dict[str, Serve], list[str]],
    tmp_path: Path,
    kind: str,
    error: type[ImageError],
) -> None:
    server, answers, requests = served
    url = f"{server}/a"
    clip = write_video(tmp_path / "clip.mp4", gray_frames(4))
    answers["/a"] = sent(b"<html>Busy</html>", Content_Type="text/html")
    (problem,) = read_records([record_of(kind, url)], SourceOptions(path="data")).problems
    assert problem.message == f"the {kind} is a URL ({url})"
    assert problem.remedy.startswith(f"Download the {kind} and use its path, or set the source")

    def content(options: ReadOptions) -> bytes:
        source = SourceOptions(path="data", fetch_images=True)
        (row,) = read_records([record_of(kind, url)], source, options).rows
        (media,) = row.images or row.videos
        return media.content()

    with pytest.raises(error) as refused:
        content(ReadOptions())
    assert str(refused.value) == (
        f"data set 'data' row 1, field '{kind}s': the {kind} '{url}' is not downloaded "
        f"('127.0.0.1' has the private address 127.0.0.1). Download the {kind} and use its path, "
        "or set data.images.fetch_private_addresses to true."
    )
    assert requests == []
    with pytest.raises(error) as refused:
        content(ReadOptions(private_downloads=True))
    assert f"the {kind} '{url}' cannot be downloaded (the content is not " in str(refused.value)
    assert f"Correct the URL, or download the {kind}s and use their paths." in str(refused.value)
    answers["/a"] = sent(png() if kind == "image" else clip.read_bytes())
    assert content(ReadOptions(private_downloads=True)) in (png(), clip.read_bytes())
