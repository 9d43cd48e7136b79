"""A local server with OpenAI's chat API that fails on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | bytes | float | None
"""A reply; an error status; a body; seconds of delay; or `None` to close the connection."""
Speak = Callable[[Mapping[str, Any], int], Reply]
"""(request, number of equal requests before it) -> the reply."""


class StubServer:
    """A server with the requests that it received."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()
        self.url = ""
        self.paths: list[str] = []
        self.owner: str | None = None
        """Owner of the model in the list of models; `None` if there is no such list."""

    def models(self) -> tuple[int, bytes]:
        """Return the status and body of the list of models."""
        if self.owner is None:
            return 501, b""
        model = {"id": "org/served", "object": "model", "owned_by": self.owner}
        return 200, json.dumps({"object": "list", "data": [model]}).encode()

    def reply(self, request: dict[str, Any], key: str | None) -> Reply:
        full = json.dumps(request, sort_keys=True)
        with self.lock:
            before = self.counts.get(full, 0)
            self.counts[full] = before + 1
            self.requests.append(request)
            self.keys.append(key)
        return self.speak(request, before)


@contextmanager
def server(speak: Speak) -> Iterator[StubServer]:
    """Run a server during a test."""
    stub = StubServer(speak)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.paths.append(self.path)
            status, body = stub.models()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            stub.paths.append(self.path)
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            reply = stub.reply(request, self.headers.get("Authorization"))
            if reply is None:
                self.close_connection = True
                self.connection.close()
                return
            status, body = 200, b""
            if isinstance(reply, float):
                time.sleep(reply)
                reply = "late"
            if isinstance(reply, int):
                status, body = reply, b'{"error": "on purpose"}'
            elif isinstance(reply, bytes):
                body = reply
            else:
                choice = {"message": {"content": reply}, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 429:
                    self.send_header("Retry-After", "0.01")
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # the client did not wait
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    stub.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        http.shutdown()
        http.server_close()


def prompt_text(request: Mapping[str, Any]) -> str:
    """Return the text of the last turn."""
    content = request["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
