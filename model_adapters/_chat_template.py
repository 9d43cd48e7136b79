"""Chat templates: choosing the one for a row, and rendering the row with it."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from unidpo_mm.adapter import AdapterOptions, place_of, template_kwargs_problems
from unidpo_mm.errors import DataError, Problem, ProcessorError
from unidpo_mm.records import Message, PreferenceRow

from ._notices import Notices

__all__ = ["Dialogue", "template_of", "template_variables"]

DEFAULT, TOOL_USE = "default", "tool_use"
"""The names that transformers gives to the templates of a model that has several."""
GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
"""The tags of transformers around generated text."""


def template_of(renderer: Any, tokenizer: Any, *, tools: bool = False) -> str | None:
    """Return the chat template for a row.

    Returns:
        The template; `None` if the model has none. Of several named templates, ``tool_use`` for a
        row with tools and ``default`` otherwise.

    Raises:
        ProcessorError: If there are several templates and no default.
    """
    template = getattr(renderer, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if template is None or isinstance(template, str):
        return template
    if not isinstance(template, Mapping):
        template = {entry["name"]: entry["template"] for entry in template}
    by_name: dict[str, str] = dict(template)
    if tools and TOOL_USE in by_name:
        return by_name[TOOL_USE]
    if DEFAULT in by_name:
        return by_name[DEFAULT]
    if len(by_name) == 1:
        return next(iter(by_name.values()))
    names = ", ".join(sorted(by_name)) or "none"
    problem_text = f"its chat templates are {names}, and none is named '{DEFAULT}'"
    remedy = "Set chat_template of the processor or tokenizer to one of them and save it"
    raise ProcessorError(Problem(place_of(renderer), problem_text, remedy))


@functools.lru_cache(maxsize=32)
def template_variables(template: str) -> frozenset[str] | None:
    """Return the names of the variables in a template; `None` if it cannot be parsed."""
    from jinja2 import Environment, TemplateError, meta

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # as in transformers
    try:
        parsed = environment.parse(GENERATION.sub("", template))
        return frozenset(meta.find_undeclared_variables(parsed))
    except TemplateError:
        return None


class Dialogue:
    """A row as rendered by its chat template.

    Raises:
        DataError: If the template refuses the row, or its variables cannot be used.
    """

    def __init__(
        self,
        row: PreferenceRow,
        renderer: Any,
        template: str,
        options: AdapterOptions,
        *,
        as_parts: bool,
        notices: Notices,
    ) -> None:
        self.row, self.as_parts, self.notices = row, as_parts, notices
        self._renderer, self._template = renderer, template
        self._turns = [_turn(message, as_parts=as_parts) for message in row.messages]
        self._arguments = self._variables(options)
        if row.tools:
            self._arguments["tools"] = json.loads(row.tools)
        self.prompt = self._render(self._turns, "prompt", generation=True)

    def with_response(self, text: str, field: str) -> str:
        """Return the complete conversation, with a response as its last turn."""
        turn = _turn(Message("assistant", (text,)), as_parts=self.as_parts)
        return self._render([*self._turns, turn], field, generation=False)

    def _render(self, turns: list[dict[str, Any]], field: str, *, generation: bool) -> str:
        try:
            rendered: str = self._renderer.apply_chat_template(
                turns,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=generation,
                **self._arguments,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise DataError(self._refusal(error, field)) from error
        return rendered

    def _refusal(self, error: Exception, field: str) -> Problem:
        """Return the problem of a row that the template refuses."""
        from jinja2 import TemplateError

        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else ""
        if not isinstance(error, TemplateError):
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        remedies = ["Change the turns of the row to what the template accepts"]
        if any(message.role == "system" for message in self.row.messages):
            remedies = ["Move the system message into the first user message"]
        if self.row.raw:
            remedies.append("set model.prompt_style to raw")
        remedies += ["use another chat template", "or remove the row"]
        return Problem(
            f"{self.row.where}, field '{field}'",
            f"the model's chat template refuses the row: {reason or type(error).__name__}",
            ", ".join(remedies),
        )

    def _variables(self, options: AdapterOptions) -> dict[str, Any]:
        """Return the variables for the template that it uses."""
        of_row: Any = json.loads(self.row.template_kwargs) if self.row.template_kwargs else {}
        where = f"{self.row.where}, field 'chat_template_kwargs'"
        if problems := template_kwargs_problems(of_row, where):
            raise DataError(problems)
        variables = {**options.chat_template_kwargs, **of_row}
        names = template_variables(self._template)
        if names is None:
            return variables
        for name in sorted(variables.keys() - names):
            self.notices.warn(
                f"unused variable {name}",
                self.row,
                "the chat template has no variable '%s', so chat_template_kwargs does not change "
                "the prompts. Check the spelling or remove it",
                name,
            )
        return {name: value for name, value in variables.items() if name in names}


def _turn(message: Message, *, as_parts: bool) -> dict[str, Any]:
    turn = message.turn()
    return turn if as_parts else {**turn, "content": message.text}
