"""The plan of a run: its cost, from tokenizer and processor alone (`--plan`)."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import counted
from .load import Making, scorer_name
from .models import LOCAL, ModelFacts, model_facts
from .pilot import Pilot, find_pilot
from .plan_tokens import Estimate, PromptLengths, measure_prompts, response_tokens
from .run import groups_of, prompts_of
from .run_warnings import blind_scorers
from .scorer import Scorer
from .scoring import Group
from .timing import Timing, duration

__all__ = ["Plan", "plan_of"]

REQUEST = "request"
"""Part of the name of a unit that is a call of a judge."""
READ, WRITTEN = "tokens read", "tokens written"
"""Units of a scorer that knows the tokens of its requests."""
INSTRUCTIONS = 300
"""Tokens of a judge's instructions, a guess."""
VERDICT = 256
"""Tokens of a judge's reply, a guess for scorers without `max_tokens`."""
RECORD = 120
"""Bytes of a record of a response or a score, without its text."""
BYTES = 5
"""Bytes per token of text, rather too many."""
CHARACTERS_PER_TOKEN = 4
"""The usual number for English, where there is no tokenizer."""


@dataclass
class Plan:
    """The plan of a run.

    Attributes:
        sections: Title -> name -> value.
        warnings: What the user should know before it runs.
        requests: Maximum number of requests to judges.
        seconds: Expected time of a run; `None` without a pilot that measured it.
    """

    sections: dict[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    requests: int = 0
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """The facts from which all sections are computed."""

    making: Making
    groups: Sequence[Group]
    lengths: PromptLengths | None
    tokens: Estimate | None
    source: str
    pilot: Pilot | None
    models: Mapping[str, ModelFacts]
    price: tuple[float, float] | None
    characters: int

    @property
    def responses(self) -> int:
        """Number of responses to score."""
        return sum(len(group.ids) for group in self.groups)

    @property
    def sampled(self) -> int:
        """Number of responses to sample."""
        sample = self.making.recipe.sample
        return 0 if sample.responses == "given" else sample.n * len(self.groups)

    @property
    def response_length(self) -> float:
        """Tokens per response: the expected number, or else the maximum or a guess."""
        if self.tokens is not None:
            return self.tokens.mean
        if self.sampled:
            return self.making.recipe.sample.max_new_tokens
        return self.characters / CHARACTERS_PER_TOKEN / max(self.responses, 1)


def plan_of(
    making: Making, *, price: tuple[float, float] | None = None, exact: bool = False
) -> Plan:
    """Return the plan of a recipe. No weights are loaded.

    Args:
        making: The recipe.
        price: Price of a million tokens that a judge reads and writes; `None` if unknown.
        exact: Whether the lengths of all prompts are measured, instead of those of a sample.
    """
    prompts = prompts_of(making)
    lengths = measure_prompts(making, prompts.items, exact=exact)
    pilot, reason = find_pilot(making)
    tokens, source = response_tokens(making, lengths, pilot)
    facts = _Facts(
        making=making,
        groups=groups_of(making, prompts.items),
        lengths=lengths,
        tokens=tokens,
        source=source,
        pilot=pilot,
        models={model.role: model for model in model_facts(making)},
        price=price,
        characters=sum(len(r.text) for item in prompts.items for r in item.row.responses),
    )
    plan = Plan()
    counts = prompts.funnel.counts["prompts"]
    plan.sections["Prompts"] = {
        **{name: f"{number:,}" for name, number in counts.items()},
        **_prompt_tokens(facts),
    }
    plan.sections["Responses"] = _responses(facts)
    plan.sections["Scores"] = _scores(facts, plan)
    plan.sections["Disk"] = _disk(facts, plan)
    plan.sections["Time"] = _time(facts, plan, reason)
    plan.warnings += [*_length_warnings(facts), *blind_scorers(making, facts.groups)]
    return plan


def _prompt_tokens(facts: _Facts) -> dict[str, str]:
    lengths = facts.lengths
    if lengths is None:
        return {"tokens": "not measured, because no model is set"}
    if lengths.tokens is None:
        return {"tokens": "not measured, because no prompt can be encoded"}
    total = lengths.tokens.total(len(facts.groups))
    per_prompt = f"{lengths.tokens.mean:,.1f} per prompt, at most {lengths.longest:,}"
    return {"tokens": f"{total}; {per_prompt}; {lengths.tokens.measured:,} prompts measured"}


def _responses(facts: _Facts) -> dict[str, str]:
    lines = {}
    if facts.sampled:
        limit = facts.making.recipe.sample.max_new_tokens
        lines["to sample"] = f"{facts.sampled:,}"
        lines["new tokens"] = f"at most {facts.sampled * limit:,}"
        if facts.tokens is not None:
            expected = facts.tokens.total(facts.sampled)
            lines["new tokens"] += f", expected {expected} from {facts.source}"
    if facts.responses > facts.sampled:
        number = facts.responses - facts.sampled
        lines["of the sources"] = f"{number:,}"
        if facts.tokens is not None and not facts.sampled:
            lines["tokens"] = f"{facts.tokens.total(number)} from {facts.source}"
    lines["to score"] = f"{facts.responses:,}"
    return lines


# ---- scores ----


def _scores(facts: _Facts, plan: Plan) -> dict[str, str]:
    lines = {}
    cost = 0.0
    for name, scorer in facts.making.scorers.items():
        units = scorer.units(facts.responses, len(facts.groups))
        parts = [scorer_name(facts.making, name)]
        parts += [f"{number:,} {unit}" for unit, number in units.items()] or ["without a model"]
        requests = sum(number for unit, number in units.items() if REQUEST in unit)
        if requests:
            plan.requests += requests
            read, written = _judge_tokens(facts, scorer, units, requests)
            parts.append(f"about {read:,} tokens read, at most {written:,} written")
            if facts.price is not None and not str(getattr(scorer, "judge", "")).startswith(LOCAL):
                price = (read * facts.price[0] + written * facts.price[1]) / 1e6
                parts.append(f"costs about {price:,.2f}")
                cost += price
        if name in facts.models:
            parts += _model_parts(facts.models[name], parts)
        lines[name] = "; ".join(parts)
    if facts.price is not None and plan.requests:
        lines["cost of all"] = f"about {cost:,.2f}"
    return lines


def _model_parts(model: ModelFacts, parts: list[str]) -> Iterator[str]:
    if "without a model" in parts:
        parts.remove("without a model")
    size = "not in a local directory" if model.size is None else f"{_bytes(model.size)} on disk"
    yield f"model {model.name}, {size}"


def _judge_tokens(
    facts: _Facts, scorer: Scorer, units: Mapping[str, int], requests: int
) -> tuple[int, int]:
    """Return the tokens that a judge reads and writes."""
    lengths = facts.lengths
    prompt = 0.0 if lengths is None or lengths.tokens is None else lengths.tokens.mean
    read = requests * (prompt + facts.response_length + INSTRUCTIONS)
    limit = getattr(scorer, "max_tokens", VERDICT)
    return units.get(READ, round(read)), units.get(WRITTEN, requests * int(limit))


# ---- disk and time ----


def _disk(facts: _Facts, plan: Plan) -> dict[str, str]:
    if facts.pilot is not None:
        size = facts.pilot.size / facts.pilot.prompts * len(facts.groups)
        text = f"about {_bytes(size)}, as in the pilot"
    else:
        texts = 2 * (RECORD + BYTES * facts.response_length)  # also in the rows
        size = facts.responses * (texts + RECORD * len(facts.making.scorers))
        text = f"about {_bytes(size)}, without copies of images"
    free = shutil.disk_usage(_existing(facts.making.recipe.directory)).free
    if size > free:
        plan.warnings.append(f"The files need {_bytes(size)}, and {_bytes(free)} are free.")
    return {"files": text, "free": _bytes(free)}


def _existing(folder: Path) -> Path:
    """Return a directory, or the closest directory above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _time(facts: _Facts, plan: Plan, reason: str) -> dict[str, str]:
    timing = None if facts.pilot is None else facts.pilot.timing
    if timing is None:
        text = reason or "the pilot has not measured it"
        return {"unknown": f"{text}; run with --pilot 16 first"}
    times = dict(_stage_times(facts, timing))
    missing = [name for name in _stages(facts) if name not in times]
    if missing:
        return {"unknown": f"the pilot has not finished {', '.join(missing)}; run it again"}
    plan.seconds = sum(times.values())
    lines = {name: duration(seconds) for name, seconds in times.items()}
    processes = counted(timing.processes, "process", "processes")
    return {**lines, "all": f"{duration(plan.seconds)} with {processes}, as in the pilot"}


def _stages(facts: _Facts) -> list[str]:
    return ["prompts", *(["sample"] if facts.sampled else []), *facts.making.scorers, "pair"]


def _stage_times(facts: _Facts, timing: Timing) -> Iterator[tuple[str, float]]:
    """Yield the expected seconds of each stage that a pilot has measured."""
    items = {"sample": facts.sampled, "pair": len(facts.groups)}
    for name in _stages(facts):
        stage = timing.stages.get(name)
        if stage is None:
            continue
        if name == "prompts":  # a pilot reads all of them, too
            yield name, stage.seconds
        else:
            processes = 1 if name == "pair" else timing.processes
            yield name, stage.expected(items.get(name, facts.responses), processes)


def _length_warnings(facts: _Facts) -> Iterator[str]:
    lengths = facts.lengths
    if lengths is None:
        return
    if lengths.invalid:
        text = counted(lengths.invalid, "measured prompt")
        yield f"{text} cannot be encoded, the first: {lengths.message}"
    if lengths.too_long:
        yield (
            f"{lengths.too_long:.1%} of the measured prompts have more than {lengths.limit:,} "
            "tokens, which leaves no room for max_new_tokens: they get no response."
        )


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
