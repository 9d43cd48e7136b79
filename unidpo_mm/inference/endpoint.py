"""Client of an OpenAI-compatible server: retries temporary failures and classifies the others."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import requests

from ..errors import Problem, RecipeError
from ..plugins import suggestion
from ..secrets import mask_text, mask_url

__all__ = [
    "EXTENDED",
    "SERVERS",
    "ChatClient",
    "ChatFailure",
    "ChatMessage",
    "ChatReply",
    "FailureKind",
]

FailureKind = Literal[
    "timeout", "rate_limited", "server_error", "unreachable", "refused", "malformed"
]
ChatMessage = Mapping[str, Any]
Result = TypeVar("Result")
DEFAULT_KEY = "OPENAI_API_KEY"
REASONING = ("reasoning_content", "reasoning")
"""Fields of a message in which servers return the reasoning separately from the answer."""
EXTENDED = ("vllm", "sglang")
"""Servers that support more request fields than OpenAI's; others refuse unknown fields."""
SERVERS = (*EXTENDED, "openai", "auto")
"""Kinds of servers; ``auto`` reads ``owned_by`` in the server's list of models."""
TEMPORARY = frozenset({429, 500, 502, 503, 504})
"""Status codes after which a retry may succeed."""
MAX_WAIT = 60.0
"""Maximum number of seconds between two attempts, whatever a server asks for."""


class ChatFailure(Exception):
    """A request without a usable reply; unless it was refused, a retry may succeed."""

    def __init__(self, kind: FailureKind, message: str, *, retry_after: float = 0.0) -> None:
        message = mask_text(message)  # a server may echo the request
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.retry_after = kind, message, retry_after


@dataclass(frozen=True)
class ChatReply:
    """A reply.

    Attributes:
        text: As the server returned it.
        finish_reason: ``length`` if it hit the token limit.
        new_tokens: Its number of tokens; `None` if the server does not report it.
    """

    text: str
    finish_reason: str | None
    new_tokens: int | None = None


@dataclass
class ChatClient:
    """A model behind a URL.

    Attributes:
        base_url: The URL up to ``/v1``.
        model: The server's name of the model.
        key_name: Environment variable with the API key; `None` for `OPENAI_API_KEY`, which is sent
            to https URLs only.
        server: One of `SERVERS`; ``auto`` becomes the kind that the server reports.
        timeout: Seconds to wait for a reply.
        attempts: Maximum number of attempts per request.
        wait: Seconds before the second attempt; doubled each time.
        sleep: Replaced in tests.
    """

    base_url: str = field(repr=False)
    model: str
    key_name: str | None = None
    server: str = "auto"
    timeout: float = 120.0
    attempts: int = 6
    wait: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            text = f"'{self.address}' is not the URL of a server"
            raise RecipeError(Problem("URL", text, "Use a URL such as http://host:8000/v1"))
        if self.server not in SERVERS:
            text = f"unknown kind of server '{self.server}'{suggestion(self.server, SERVERS)}"
            raise RecipeError(Problem("--server", text, f"Choose one of {', '.join(SERVERS)}"))
        if self.key_name is not None and not os.environ.get(self.key_name):
            text = f"the environment variable {self.key_name} is not set"
            raise RecipeError(Problem("API key", text, f"Set {self.key_name} to the key"))

    @property
    def address(self) -> str:
        """The URL without passwords and keys, for messages and files."""
        return mask_url(self.base_url)

    @property
    def extended(self) -> bool:
        """Whether the server supports fields beyond OpenAI's, such as ``top_k``."""
        return self.kind() in EXTENDED

    def kind(self) -> str:
        """Return the kind of the server: one of `SERVERS`, or ``unknown``."""
        if self.server == "auto":
            self.server = self._retry(self._listed_kind)
        return self.server

    def chat(self, messages: Sequence[ChatMessage], **parameters: Any) -> ChatReply:
        """Return the reply to messages in OpenAI's format, or raise the last `ChatFailure`."""
        request = {"model": self.model, "messages": list(messages), **parameters}
        return self._retry(lambda: self._post(request))

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        """Return the result of an attempt, repeated after temporary failures."""
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except ChatFailure as failure:
                if failure.kind == "refused" or number == self.attempts:
                    raise
                delay = max(self.wait * 2 ** (number - 1), failure.retry_after)
                self.sleep(min(delay, MAX_WAIT))
        raise AssertionError  # at least one attempt is made

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        parts = urlsplit(self.base_url)  # its query parameters stay at the end
        url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))
        try:
            return self._session().request(method, url, timeout=self.timeout, **options)
        except requests.Timeout as error:
            raise ChatFailure("timeout", f"no reply in {self.timeout:g} s") from error
        except requests.RequestException as error:
            # the beginning of the message describes objects of the library
            reason = str(error).rpartition(": ")[2].strip("\"')> ") or type(error).__name__
            raise ChatFailure("unreachable", reason) from error

    def _listed_kind(self) -> str:
        response = self._request("GET", "models")
        if response.status_code in TEMPORARY:
            text = f"status {response.status_code}"
            raise ChatFailure("server_error", text, retry_after=_retry_after(response))
        try:
            models = response.json()["data"] if response.ok else []
        except (requests.JSONDecodeError, KeyError, TypeError):
            models = []
        listed = [model for model in models or () if isinstance(model, Mapping)]
        matching = [model for model in listed if model.get("id") == self.model] or listed
        owners = [str(model.get("owned_by", "")).lower() for model in matching]
        return next(
            (kind for kind in SERVERS for owner in owners if owner.startswith(kind)), "unknown"
        )

    def _post(self, request: Mapping[str, Any]) -> ChatReply:
        response = self._request("POST", "chat/completions", json=request)
        status, text = response.status_code, response.text[:200]
        if status == 429:
            raise ChatFailure("rate_limited", text, retry_after=_retry_after(response))
        if status >= 500:
            raise ChatFailure("server_error", f"status {status}: {text}")
        if status in (401, 403):
            reason = "rejects the API key" if self._key() else "requires an API key"
            problem = f"the server {reason} (status {status})"
            remedy = "Use the environment variable with the right key"
            raise RecipeError(Problem("API key", problem, remedy))
        if status >= 400:
            raise ChatFailure("refused", f"status {status}: {text}")
        return _reply(response)

    def _session(self) -> requests.Session:
        """Return the session of this thread."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = not self.base_url.startswith(("http://127.", "http://localhost"))
            if key := self._key():
                session.headers["Authorization"] = f"Bearer {key}"
            self._local.session = session
        return cast(requests.Session, self._local.session)

    def _key(self) -> str | None:
        """Return the key; the default one is sent over encrypted connections only."""
        if self.key_name is None and not self.base_url.startswith("https://"):
            return None
        return os.environ.get(self.key_name or DEFAULT_KEY)


def _retry_after(response: requests.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 0.0


def _reply(response: requests.Response) -> ChatReply:
    try:
        content = response.json()
        choice = content["choices"][0]
        message = choice["message"]
        text = message["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ChatFailure("malformed", f"no reply in {response.text[:200]!r}") from error
    if text is None and any(isinstance(message.get(name), str) for name in REASONING):
        text = ""  # truncated before the answer began
    if not isinstance(text, str):
        raise ChatFailure("malformed", f"the reply is {type(text).__name__}")
    usage = content.get("usage") or {}
    return ChatReply(text, choice.get("finish_reason"), usage.get("completion_tokens"))
