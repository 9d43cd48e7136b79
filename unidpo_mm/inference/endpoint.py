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
    "PASSING",
    "SERVERS",
    "ChatClient",
    "ChatFailure",
    "ChatMessage",
    "ChatReplies",
    "ChatReply",
    "FailureKind",
    "failure_of",
    "replies_of",
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
ABOUT_PROMPT = frozenset({400, 413, 415, 422})
"""Status codes with which a server refuses a prompt, whereas others concern URL, model or key."""
MAX_WAIT = 60.0
"""Maximum number of seconds between two attempts, whatever a server asks for."""


PASSING = frozenset({"timeout", "rate_limited", "server_error", "unreachable"})
"""Kinds of failures after which a later run may get a reply."""


class ChatFailure(Exception):
    """A request without a usable reply; unless it was refused, a retry may succeed.

    Args:
        kind: What happened.
        message: Details.
        retry_after: Seconds to wait before the next attempt, as the server states them.
        status: The status code; `None` if there was no reply.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retry_after: float = 0.0,
        status: int | None = None,
    ) -> None:
        message = mask_text(message)  # a server may echo the request
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.retry_after = kind, message, retry_after
        self.status = status

    @property
    def about_prompt(self) -> bool:
        """Whether the server refused this prompt, so that other prompts may be accepted."""
        return self.kind == "refused" and self.status in ABOUT_PROMPT


@dataclass(frozen=True)
class ChatReply:
    """A reply.

    Attributes:
        text: As the server returned it.
        finish_reason: ``length`` if it hit the token limit.
        new_tokens: Its number of tokens; `None` if the server does not report it, as it does only
            for all choices of a request together.
    """

    text: str
    finish_reason: str | None
    new_tokens: int | None = None


@dataclass(frozen=True)
class ChatReplies:
    """The replies to one request.

    Attributes:
        choices: One reply, or those to a request with ``n`` in the order of their index; servers
            may return fewer than requested.
        prompt_tokens: Number of tokens of the prompt; `None` if the server does not report it.
    """

    choices: tuple[ChatReply, ...]
    prompt_tokens: int | None = None


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
        return self.choices(messages, **parameters).choices[0]

    def choices(self, messages: Sequence[ChatMessage], **parameters: Any) -> ChatReplies:
        """Return all replies to a request, which may have the parameter ``n``.

        Raises:
            ChatFailure: The last one, after all attempts.
            RecipeError: If the server requires another API key.
        """
        request = {"model": self.model, "messages": list(messages), **parameters}
        return self._retry(lambda: replies_of(self._post("chat/completions", request)))

    def post(self, path: str, request: Mapping[str, Any]) -> Any:
        """Return the reply of another endpoint, as JSON values.

        Args:
            path: The endpoint, relative to the URL.
            request: The fields of the request; the name of the model is added.

        Raises:
            ChatFailure, RecipeError: As in `choices`.
        """
        return self._retry(lambda: self._post(path, {"model": self.model, **request}))

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

    def models(self) -> list[str]:
        """Return the names of the models that the server lists; empty if it does not."""
        return [str(model["id"]) for model in self._retry(self._listed) if "id" in model]

    def _listed(self) -> list[Mapping[str, Any]]:
        response = self._request("GET", "models")
        if response.status_code in TEMPORARY:
            text = f"status {response.status_code}"
            raise ChatFailure("server_error", text, retry_after=_retry_after(response))
        try:
            models = response.json()["data"] if response.ok else []
        except (requests.JSONDecodeError, KeyError, TypeError):
            models = []
        return [model for model in models or () if isinstance(model, Mapping)]

    def _listed_kind(self) -> str:
        listed = self._listed()
        matching = [model for model in listed if model.get("id") == self.model] or listed
        owners = [str(model.get("owned_by", "")).lower() for model in matching]
        return next(
            (kind for kind in SERVERS for owner in owners if owner.startswith(kind)), "unknown"
        )

    def _post(self, path: str, request: Mapping[str, Any]) -> Any:
        response = self._request("POST", path, json=request)
        status = response.status_code
        if status in (401, 403):
            key = self.key_name or DEFAULT_KEY
            reason = f"rejects the API key in {key}" if self._key() else "requires an API key"
            problem = f"the server {reason} (status {status})"
            remedy = "Use the environment variable with the right key"
            raise RecipeError(Problem("API key", problem, remedy))
        if status >= 400:
            raise failure_of(status, response.text, retry_after=_retry_after(response))
        try:
            return response.json()
        except ValueError as error:
            raise ChatFailure("malformed", f"no reply in {response.text[:200]!r}") from error

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


def failure_of(status: int, text: str, *, retry_after: float = 0.0) -> ChatFailure:
    """Return the failure that a status code means.

    Args:
        status: A status code of at least 400.
        text: The body of the reply.
        retry_after: Seconds to wait before the next attempt.
    """
    text = text[:200]
    if status == 429:
        return ChatFailure("rate_limited", text, retry_after=retry_after, status=status)
    kind: FailureKind = "server_error" if status >= 500 else "refused"
    return ChatFailure(kind, f"status {status}: {text}", status=status)


def replies_of(content: Any) -> ChatReplies:
    """Return the replies in the body of a chat completion.

    Raises:
        ChatFailure: If it has none, or one without text.
    """
    try:
        choices = [(choice, choice["message"]) for choice in content["choices"]]
        choices.sort(key=lambda item: int(item[0].get("index") or 0))
        usage = content.get("usage") or {}
        texts = [_text(message) for _, message in choices]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChatFailure("malformed", f"no reply in {str(content)[:200]!r}") from error
    if not texts:
        raise ChatFailure("malformed", f"no reply in {str(content)[:200]!r}")
    tokens = usage.get("completion_tokens") if len(texts) == 1 else None
    replies = [
        ChatReply(text, choice.get("finish_reason"), tokens)
        for text, (choice, _) in zip(texts, choices, strict=True)
    ]
    return ChatReplies(tuple(replies), usage.get("prompt_tokens"))


def _text(message: Mapping[str, Any]) -> str:
    text = message["content"]
    if text is None and any(isinstance(message.get(name), str) for name in REASONING):
        return ""  # truncated before the answer began
    if not isinstance(text, str):
        raise ChatFailure("malformed", f"the reply is {type(text).__name__}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # a truncated emoji
