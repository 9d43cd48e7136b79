"""One chat request to an OpenAI-compatible server: retried where that helps, failures by kind."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import requests

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion
from unidpo_mm.secrets import mask_secrets, mask_url

__all__ = ["SERVERS", "ChatClient", "Failure", "Kind", "Message", "Said"]

Kind = Literal["timeout", "rate_limited", "server_error", "unreachable", "refused", "malformed"]
Message = Mapping[str, Any]
Answer = TypeVar("Answer")
USUAL_KEY = "OPENAI_API_KEY"
REASONING = ("reasoning_content", "reasoning")
"""Fields of a message in which servers return the reasoning apart from the answer."""
EXTENDED = ("vllm", "sglang")
"""Servers that take more fields of a request than OpenAI's; others refuse unknown fields."""
SERVERS = (*EXTENDED, "openai", "auto")
"""Kinds of servers; ``auto`` reads ``owned_by`` of the server's list of models."""
PASSING = frozenset({429, 500, 502, 503, 504})
"""Status codes of a server that may answer later."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, whatever a server asks for."""


class Failure(Exception):
    """A request that was not answered.

    Args:
        kind: What went wrong.
        found: What the server said, or did.
    """

    def __init__(self, kind: Kind, found: str) -> None:
        found = mask_secrets(found)  # a server may repeat what it was sent
        super().__init__(f"{kind}: {found}")
        self.kind, self.found = kind, found


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        text: As the server gave it.
        finish_reason: ``length`` where the limit of new tokens ended it.
        new_tokens: How many it has; None where the server does not say.
    """

    text: str
    finish_reason: str | None
    new_tokens: int | None = None


@dataclass
class ChatClient:
    """A model behind an address.

    Attributes:
        base_url: Up to ``/v1``.
        model: What the server calls the model.
        key_name: Variable of the environment that holds the key; None for `OPENAI_API_KEY`, which
            an address of https gets where it is set.
        server: One of `SERVERS`.
        timeout: Seconds that one answer may take.
        attempts: Requests for one answer before it counts as failed.
        wait: Seconds before the second attempt; doubled each time.
        sleep: Waits; tests pass their own.
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
    _kind: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            found = f"'{self.address}' is no address of a server"
            raise RecipeError(Problem("address", found, "Give one such as http://host:8000/v1"))
        if self.server not in SERVERS:
            found = f"unknown kind of server '{self.server}'{suggestion(self.server, SERVERS)}"
            raise RecipeError(Problem("--server", found, f"Choose one of {', '.join(SERVERS)}"))
        if self.key_name is not None and not os.environ.get(self.key_name):
            found = f"the environment has no key '{self.key_name}'"
            raise RecipeError(Problem("key", found, f"Set {self.key_name}, or name another"))

    @property
    def address(self) -> str:
        """The URL without passwords and keys, for messages and files."""
        return mask_url(self.base_url)

    @property
    def extended(self) -> bool:
        """Whether the server takes fields that OpenAI's own does not know, as ``top_k``."""
        return self.kind() in EXTENDED

    def kind(self) -> str:
        """Return the kind of the server: one of `SERVERS`, or ``unknown``.

        Raises:
            Failure: If it has to be asked and does not answer.
        """
        if self.server != "auto":
            return self.server
        if self._kind is None:
            self._kind = self._retried(self._listed_kind)
        return self._kind

    def remember_kind(self, kind: str) -> None:
        """Use a kind that the server stated earlier instead of asking it."""
        self._kind = kind

    def chat(self, messages: Sequence[Message], **settings: Any) -> Said:
        """Returns the answer to a conversation.

        Args:
            messages: In OpenAI's layout.
            settings: Further fields of the request, for example ``max_tokens``.

        Raises:
            Failure: If no attempt was answered.
        """
        request = {"model": self.model, "messages": list(messages), **settings}
        return self._retried(lambda: self._once(request))

    def _retried(self, attempted: Callable[[], Answer]) -> Answer:
        """Return what an attempt returns, tried again while that helps."""
        for attempt in range(1, self.attempts + 1):
            try:
                return attempted()
            except _Retry as again:
                if attempt == self.attempts:
                    raise again.failure from again
                delay = max(self.wait * 2 ** (attempt - 1), again.after)
                self.sleep(min(delay, LONGEST_WAIT))
        raise AssertionError  # at least one attempt is made

    def _url(self, path: str) -> str:
        """Return the URL of an endpoint; parameters of the base URL stay behind the path."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))

    def _listed_kind(self) -> str:
        try:
            answer = self._session().get(self._url("models"), timeout=self.timeout)
            if answer.status_code in PASSING:
                raise _Retry("server_error", f"status {answer.status_code}", after=_after(answer))
            models = answer.json()["data"] if answer.ok else []
        except requests.Timeout as error:
            raise _Retry("timeout", f"no answer in {self.timeout:g} s") from error
        except requests.JSONDecodeError:
            models = []
        except requests.RequestException as error:
            raise _Retry("unreachable", _why(error)) from error
        except (KeyError, TypeError):
            models = []
        listed = [model for model in models or () if isinstance(model, Mapping)]
        ours = [model for model in listed if model.get("id") == self.model] or listed
        owners = [str(model.get("owned_by", "")).lower() for model in ours]
        return next(
            (kind for kind in SERVERS for owner in owners if owner.startswith(kind)), "unknown"
        )

    def _once(self, request: Mapping[str, Any]) -> Said:
        try:
            answer = self._session().post(
                self._url("chat/completions"), json=request, timeout=self.timeout
            )
        except requests.Timeout as error:
            raise _Retry("timeout", f"no answer in {self.timeout:g} s") from error
        except requests.RequestException as error:
            raise _Retry("unreachable", _why(error)) from error
        status = answer.status_code
        if status == 429:
            raise _Retry("rate_limited", answer.text[:200], after=_after(answer))
        if status >= 500:
            raise _Retry("server_error", f"status {status}: {answer.text[:200]}")
        if status in (401, 403):
            what = "refuses the key" if self._key() else "wants a key, and there is none"
            found = f"the server {what} (status {status})"
            remedy = "Name the variable of the environment that holds the right one"
            raise RecipeError(Problem("key", found, remedy))
        if status >= 400:
            raise Failure("refused", f"status {status}: {answer.text[:200]}")
        return _said(answer)

    def _session(self) -> requests.Session:
        """Returns the session of this thread."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = not self.base_url.startswith(("http://127.", "http://localhost"))
            if key := self._key():
                session.headers["Authorization"] = f"Bearer {key}"
            self._local.session = session
        found: requests.Session = self._local.session
        return found

    def _key(self) -> str | None:
        """Returns the key; the usual one is sent nowhere but over an encrypted connection."""
        if self.key_name is None and not self.base_url.startswith("https://"):
            return None
        return os.environ.get(self.key_name or USUAL_KEY)


class _Retry(Exception):
    def __init__(self, kind: Kind, found: str, *, after: float = 0.0) -> None:
        super().__init__(found)
        self.failure, self.after = Failure(kind, found), after


def _why(error: Exception) -> str:
    """Returns the end of what the library says: its beginning is about its own objects."""
    return str(error).rpartition(": ")[2].strip("\"')> ") or type(error).__name__


def _after(answer: requests.Response) -> float:
    try:
        return float(answer.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 0.0


def _said(answer: requests.Response) -> Said:
    try:
        content = answer.json()
        choice = content["choices"][0]
        message = choice["message"]
        text = message["content"]
        if text is None and any(isinstance(message.get(name), str) for name in REASONING):
            text = ""  # it was cut before the answer began
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Retry("malformed", f"no answer in {answer.text[:200]!r}") from error
    if not isinstance(text, str):
        raise _Retry("malformed", f"the answer is {type(text).__name__}")
    usage = content.get("usage") or {}
    return Said(text, choice.get("finish_reason"), usage.get("completion_tokens"))
