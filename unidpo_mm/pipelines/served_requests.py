"""Requests for sampled responses in OpenAI's format, and the records of their replies.

A request has a seed of its own, and response k of a prompt the seed s + k. vLLM gives choice k of a
request with the seed s this seed as well: several choices equal as many requests, so that missing
responses can be requested alone. Servers and batch files therefore get the same requests.
"""

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, Problem
from ..inference.endpoint import ChatReplies
from ..inference.noise import noise_key
from ..inference.sampling import random_sampling
from ..inference.served_model import messages_of
from ..records import PreferenceRow
from .files import sampled_id
from .prompt_set import MadePrompt
from .recipe import MakeRecipe

__all__ = ["Block", "SampleRequests", "faults", "missing_blocks", "with_images", "without_images"]

SEED_BITS = 30
"""Bits of the seed of a prompt, so that the seeds of all its responses are 32-bit integers."""
TEMPLATE = "chat_template_kwargs"

Record = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Responses of one request: those to a prompt with consecutive numbers.

    Attributes:
        prompt: The prompt.
        first: Number of the first response.
        count: Number of responses.
    """

    prompt: MadePrompt
    first: int
    count: int

    def part(self, start: int, stop: int) -> "Block":
        """Return a part of the block, by positions from 0."""
        return Block(self.prompt, self.first + start, stop - start)

    def singles(self) -> list["Block"]:
        """Return a block per response."""
        return [self.part(position, position + 1) for position in range(self.count)]


def missing_blocks(
    prompts: Sequence[MadePrompt], n: int, done: Container[object]
) -> Iterator[Block]:
    """Yield the responses that do not exist, each prompt's in as few blocks as possible.

    Args:
        prompts: The prompts.
        n: Number of responses per prompt.
        done: Ids of the responses that exist.
    """
    for prompt in prompts:
        first = 0
        for number in range(n + 1):
            if number == n or sampled_id(prompt.id, number) in done:
                if number > first:
                    yield Block(prompt, first, number - first)
                first = number + 1


@dataclass(frozen=True)
class SampleRequests:
    """The requests of a recipe to a server.

    Attributes:
        model: Name of the model.
        fields: Fields that all requests have.
        seed: Seed of the recipe.
        extended: Whether the server supports fields beyond OpenAI's.
    """

    model: str
    fields: Mapping[str, Any]
    seed: int
    extended: bool

    @classmethod
    def of(
        cls, recipe: MakeRecipe, model: str, *, where: str, extended: bool, remedy: str
    ) -> "SampleRequests":
        """Return the requests of a recipe.

        Args:
            recipe: The recipe.
            model: The server's name of the model.
            where: The server, for messages.
            extended: Whether it supports fields beyond OpenAI's.
            remedy: How to state that it does, for messages.

        Raises:
            RecipeError: If the server does not support what the recipe needs.
        """
        sample = recipe.sample
        fields = random_sampling(
            sample.sampling,
            max_tokens=sample.max_new_tokens,
            where=where,
            extended=extended,
            remedy=remedy,
            stop=sample.stop,
            chat_template_kwargs=recipe.model.chat_template_kwargs if recipe.model else None,
        )
        return cls(model, fields, sample.seed, extended)

    def seed_of(self, block: Block) -> int:
        """Return the seed of the first response of a block."""
        return (noise_key(self.seed, block.prompt.id, 0) >> (64 - SEED_BITS)) + block.first

    def body(self, block: Block, **changes: Any) -> Record:
        """Return a request.

        Args:
            block: The responses.
            changes: Fields that differ from those of all requests.

        Raises:
            DataError: If the prompt cannot be sent.
        """
        row = block.prompt.question
        body = {"model": self.model, "messages": messages_of(row), **self.fields}
        body |= {"seed": self.seed_of(block), **self._row_fields(row), **changes}
        return body | ({"n": block.count} if block.count > 1 else {})

    def records(self, block: Block, replies: ChatReplies) -> list[Record]:
        """Return the records of replies; further choices than were requested are ignored.

        They have no number of tokens: servers report it for all choices of a request together, and
        the lengths of responses to one prompt have to be in one unit.
        """
        return [
            {
                "id": sampled_id(block.prompt.id, block.first + position),
                "response": reply.text,
                "finish_reason": reply.finish_reason,
                "seed": self.seed_of(block) + position,
            }
            for position, reply in enumerate(replies.choices[: block.count])
        ]

    def _row_fields(self, row: PreferenceRow) -> Record:
        if row.tools:
            text = "the prompt has tools, which are not sent to servers"
            raise DataError(Problem(row.where, text, "Remove the prompt, or sample without server"))
        if not row.template_kwargs:
            return {}
        if not self.extended:
            text = "the prompt sets variables of the chat template, which the server does not take"
            raise DataError(Problem(row.where, text, "Use a server of vLLM or SGLang"))
        return {TEMPLATE: {**self.fields.get(TEMPLATE, {}), **json.loads(row.template_kwargs)}}


def faults(block: Block, kind: str, message: str) -> list[Record]:
    """Return records of responses that the server will never give."""
    return [
        {
            "id": sampled_id(block.prompt.id, number),
            "response": "",
            "fault": kind,
            "message": message,
        }
        for number in range(block.first, block.first + block.count)
    ]


def without_images(messages: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return messages with their text alone."""
    return [
        {**message, "content": [part for part in message["content"] if "text" in part]}
        if isinstance(message["content"], list)
        else dict(message)
        for message in messages
    ]


def with_images(prompt: MadePrompt, images: Sequence[Any]) -> MadePrompt:
    """Return a prompt with other images."""
    return dataclasses.replace(prompt, row=dataclasses.replace(prompt.row, images=tuple(images)))
