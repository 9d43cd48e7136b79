"""The terminal interface of `unidpo-mm chat`: read messages and commands, and print responses."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from ..data.images import ImageRules, image_refs
from ..data.invalid_value import InvalidValue
from ..errors import CONTROL, DataError, Problem, UniDPOError, counted
from ..plugins import suggestion
from .failures import report_error

if TYPE_CHECKING:
    from ..inference.chat import ChatModel
    from ..inference.conversation import Reply
    from ..inference.decoding import Sampling
    from ..records import ImageRef, VideoRef

__all__ = ["ChatTerminal", "images_of", "prompt_of", "videos_of"]

PROMPT = "> "
HELP = """/image PATH   send an image with the next message
/video PATH   send a video with the next message
/system TEXT  set the system message; without TEXT, remove it
/reset        forget the conversation
/exit         exit; Ctrl-D does the same
Ctrl-C stops a response. A line that starts with a space is always a message."""
COMMANDS = ("/image", "/video", "/system", "/reset", "/help", "/exit")


def prompt_of(option: str | None) -> str | None:
    """Return the prompt if a single response is requested; `None` for a conversation.

    Args:
        option: The option `--prompt`; `None` to read standard input unless it is a terminal.

    Raises:
        DataError: If the prompt is empty or is not text.
    """
    where = "--prompt" if option is not None else "standard input"
    try:
        if option is None and sys.stdin.isatty():
            return None
        text = option if option is not None else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(_not_text(where)) from error
    return checked_message(text, where)


def checked_message(text: str, where: str) -> str:
    """Return a message without the line break at its end.

    Raises:
        DataError: If it is empty, or not valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # the text contains bytes of another encoding
        raise DataError(_not_text(where)) from error
    if not text.strip():
        remedy = "Write a prompt, or start the command in a terminal without --prompt"
        raise DataError(Problem(where, "the prompt is empty", remedy))
    return text.rstrip("\n")


def images_of(paths: Sequence[str], where: str = "--image") -> "list[ImageRef]":
    """Return the images at the given paths, after checking that each can be opened.

    Args:
        paths: Paths or URLs.
        where: The option or command that contains the paths, for messages.

    Raises:
        DataError: If images cannot be read; lists all of them.
    """
    rules = ImageRules(allow_outside=True, download=True)
    images: list[ImageRef] = []
    problems = []
    for path in paths:
        try:
            references = image_refs([path], rules, where)
            if not references:
                raise InvalidValue("the path of the image is empty", "Use the path of an image")
            for reference in references:
                reference.open()
            images += references
        except InvalidValue as error:
            problems.append(Problem(where, error.message, error.remedy))
        except DataError as error:
            remedy = "Use the path of an image file"
            problems += [Problem(where, problem.message, remedy) for problem in error.problems]
    if problems:
        raise DataError(problems)
    return images


def videos_of(paths: Sequence[str], where: str = "--video") -> "list[VideoRef]":
    """Return the videos at the given paths, after checking that each can be opened.

    Args:
        paths: Paths or URLs.
        where: The option or command that contains the paths, for messages.

    Raises:
        DataError: If videos cannot be read; lists all of them.
    """
    if not paths:
        return []
    from ..data.videos import video_refs
    from ..records import FrameSampling

    rules = ImageRules(allow_outside=True, download=True)
    videos: list[VideoRef] = []
    problems = []
    for path in paths:
        try:
            references = video_refs([path], rules, where)
            if not references:
                raise InvalidValue("the path of the video is empty", "Use the path of a video")
            for reference in references:
                reference.sample(FrameSampling(max_frames=2))
            videos += references
        except InvalidValue as error:
            problems.append(Problem(where, error.message, error.remedy))
        except DataError as error:
            problems += [Problem(where, item.message, item.remedy) for item in error.problems]
    if problems:
        raise DataError(problems)
    return videos


class ChatTerminal:
    """Conversations with one or several models.

    Args:
        models: The models; every message is sent to each of them.
        images: Images for the first message.
        videos: Videos for the first message.
        sampling: How tokens are drawn; `None` for greedy decoding.
        seed: Seed of each response; `None` for different responses every time.

    Raises:
        DataError: If there are images or videos and a model does not accept them.
    """

    def __init__(
        self,
        models: "Sequence[ChatModel]",
        images: "Sequence[ImageRef]",
        videos: "Sequence[VideoRef]",
        sampling: "Sampling | None",
        seed: int | None,
    ) -> None:
        self._models, self._sampling, self._seed = models, sampling, seed
        self._images: list[ImageRef] = []
        self._videos: list[VideoRef] = []
        self._status = Console(stderr=True, soft_wrap=True, highlight=False)
        self._attach("image", self._images, images, "--image")
        self._attach("video", self._videos, videos, "--video")

    def print_response(self, message: str) -> None:
        """Print the response to a message, with the names of the models if there are several."""
        stream = sys.stdout.isatty()
        for number, model in enumerate(self._models):
            if len(self._models) > 1:
                typer.echo(f"{'' if number == 0 else chr(10)}[{model.conversation.name}]")
            reply = self._respond(model, message, show=stream)
            typer.echo("" if stream else reply.text)
            if reply.finish_reason == "interrupted":
                raise KeyboardInterrupt

    def run(self) -> None:
        """Read lines and respond to them until the input ends."""
        self._import_readline()
        self._introduce()
        while True:
            try:
                line = input(PROMPT)
            except KeyboardInterrupt:
                typer.echo()
                self._note("Ctrl-D or /exit exits")
                continue
            except EOFError:
                typer.echo()
                return
            except UnicodeDecodeError:
                report_error(DataError(_not_text("message")))
                continue
            if line.startswith("/") and line.split()[0] == "/exit":
                return
            try:
                self._handle(line)
            except KeyboardInterrupt:  # before the first token
                self._note("stopped")
            except UniDPOError as error:
                report_error(error)

    def _handle(self, line: str) -> None:
        if not line.strip():
            return
        if not line.startswith("/"):
            self._answer(checked_message(line.strip(), "message"))
            return
        command, _, argument = line.strip().partition(" ")
        argument = argument.strip()
        if command == "/image":
            images = images_of([argument.strip("'\"")], command)
            self._attach("image", self._images, images, command)
            self._note(f"{self._attached()} will be sent with the next message")
        elif command == "/video":
            videos = videos_of([argument.strip("'\"")], command)
            self._attach("video", self._videos, videos, command)
            self._note(f"{self._attached()} will be sent with the next message")
        elif command == "/system":
            self._set_system(argument)
        elif command == "/reset":
            self._images, self._videos = [], []
            for model in self._models:
                model.conversation.reset()
            self._note("the conversation is empty")
        elif command == "/help":
            self._note(HELP)
        else:
            text = f"unknown command{suggestion(command, COMMANDS)}"
            remedy = "Use /help for a list, or start the line with a space to send it as a message"
            raise DataError(Problem(command, text, remedy))

    def _answer(self, message: str) -> None:
        try:
            for model in self._models:
                if len(self._models) > 1:
                    self._status.print(Text(f"[{model.conversation.name}]", style="bold"))
                reply = self._respond(model, message, show=True)
                typer.echo()
                self._explain(reply)
                if reply.finish_reason == "interrupted":
                    break
        finally:
            self._images, self._videos = [], []

    def _respond(self, model: "ChatModel", message: str, *, show: bool) -> "Reply":
        import torch

        if self._seed is not None:
            torch.manual_seed(self._seed)
        reply = model.conversation.respond(
            message,
            self._images,
            self._videos,
            write=_write if show else _discard,
            sampling=self._sampling,
        )
        if reply.dropped:
            text = counted(reply.dropped, "oldest message was", "oldest messages were")
            limit = model.conversation.max_length
            self._note(f"the {text} dropped: the maximum length is {limit:,} tokens")
        return reply

    def _explain(self, reply: "Reply") -> None:
        if reply.finish_reason == "length":
            text = counted(reply.max_new_tokens, "token")
            self._note(f"stopped after {text}; --max-new-tokens sets the maximum")
        elif reply.finish_reason == "interrupted":
            self._note("stopped")

    def _attach(self, kind: str, attached: "list[Any]", media: "Sequence[Any]", where: str) -> None:
        """Add images or videos to those of the next message."""
        for model in self._models if media else ():
            if not model.takes_images:
                problem = f"'{model.conversation.name}' is a text model, which has no vision tower"
                remedy = f"Choose a vision-language model, or remove the {kind}"
                raise DataError(Problem(where, problem, remedy))
        attached += media

    def _attached(self) -> str:
        """Return the numbers of images and videos of the next message."""
        counts = (("image", len(self._images)), ("video", len(self._videos)))
        return " and ".join(counted(count, kind) for kind, count in counts if count)

    def _set_system(self, text: str) -> None:
        for model in self._models:
            if text and model.conversation.style == "raw":
                problem = f"the prompts of '{model.conversation.name}' do not use a chat template"
                raise DataError(Problem("/system", problem, "Restart with --style chat"))
        for model in self._models:
            model.conversation.system = text
        self._note("system message set" if text else "no system message")

    def _introduce(self) -> None:
        for model in self._models:
            name = model.conversation.name
            self._status.print(Text.assemble((name, "bold"), f" ({model.description})"))
            if model.run_options:
                items = ", ".join(f"{key}: {value}" for key, value in model.run_options.items())
                self._note(f"options from its training run: {items}")
            if model.conversation.style == "raw":
                self._note(
                    "no chat template: the model continues each line as plain text, without history"
                )
        self._note("/help lists the commands; Ctrl-D exits")

    def _note(self, text: str) -> None:
        self._status.print(Text(text, style="dim"))

    def _import_readline(self) -> None:
        """Enable line editing and history if this Python has `readline`."""
        try:
            import readline  # noqa: F401
        except ImportError:
            return


def _write(piece: str) -> None:
    sys.stdout.write(CONTROL.sub("", piece))  # a response must not control the terminal
    sys.stdout.flush()


def _discard(piece: str) -> None:
    """Ignore a piece of a response: the response is printed when it is complete."""


def _not_text(where: str) -> Problem:
    return Problem(where, "the prompt is not valid UTF-8", "Save or paste it as UTF-8")
