"""Load a recipe of `unidpo-mm data make`, and check it before anything is generated."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.checks.parameters import build_parameters, typed_parameters
from ..config.load import check_valid, read_document
from ..config.paths import resolve_plugin, resolve_source, resolved
from ..errors import Problem, UniDPOError
from ..plugins import SCORERS, load, suggestion
from .conditions import Condition, parse_condition
from .files import Files
from .recipe import MakeRecipe, PairSection, ScorerSection
from .scorer import Scorer

__all__ = ["Making", "load_make_recipe"]


@dataclass(frozen=True)
class Making:
    """A recipe with the objects that it names.

    Attributes:
        recipe: The recipe.
        scorers: Name of a score -> its scorer, in the order in which they run.
        gates: Conditions on chosen and rejected responses.
    """

    recipe: MakeRecipe
    scorers: Mapping[str, Scorer]
    gates: Mapping[str, Sequence[Condition]]


def load_make_recipe(path: Path, overrides: Sequence[str] = ()) -> Making:
    """Return the recipe of a YAML file; relative paths are looked up as in a training recipe.

    Raises:
        RecipeError: With all problems of the file, the overrides, the sections and the scorers.
    """
    document, _ = read_document(path, overrides, start="'output:' and 'prompts:'")
    recipe = check_valid(
        document,
        MakeRecipe,
        lambda recipe: _resolve(recipe, path.parent),
        [_check_output, _check_scorers, _check_sampling, _check_pairs],
    )
    return Making(recipe, scorers_of(recipe)[0], gates_of(recipe)[0])


def _resolve(recipe: MakeRecipe, folder: Path) -> MakeRecipe:
    prompts = recipe.prompts
    update: dict[str, Any] = {"sources": tuple(resolve_source(s, folder) for s in prompts.sources)}
    if prompts.keep_out is not None:
        guard = prompts.keep_out
        sources = tuple(
            resolved(name, folder) if Path(name).suffix or "/" in name else name
            for name in guard.sources  # others are names of benchmarks
        )
        paths = {name: resolved(getattr(guard, name), folder) for name in ("data", "images")}
        update["keep_out"] = guard.model_copy(update={"sources": sources, **paths})
    score = {name: _resolved_scorer(section, folder) for name, section in recipe.score.items()}
    model = recipe.model
    if model is not None:
        model = model.model_copy(update={"name_or_path": resolved(model.name_or_path, folder)})
    return recipe.model_copy(
        update={"prompts": prompts.model_copy(update=update), "score": score, "model": model}
    )


def _resolved_scorer(section: ScorerSection, folder: Path) -> ScorerSection:
    """Return a section with absolute paths of the scorer and its models."""
    update: dict[str, Any] = {"scorer": resolve_plugin(section.scorer, folder)}
    names: frozenset[str] = frozenset()
    with contextlib.suppress(UniDPOError):  # reported with the other problems of the recipe
        names = getattr(load(SCORERS, str(update["scorer"])), "paths", names)
    for name in names & section.parameters.keys():
        if isinstance(value := section.parameters[name], str):
            prefix, _, path = value.rpartition(":")
            place = resolved(path, folder) if "//" not in value else path
            update[name] = f"{prefix}:{place}" if prefix else place
    return section.model_copy(update=update)


def _check_output(recipe: MakeRecipe) -> list[Problem]:
    """Return the sources that the run would overwrite."""
    directory = recipe.directory.resolve()
    files = Files(directory)
    written = {directory, files.prompts, files.responses, files.rows, files.leaks}
    sources = {f"prompts.sources.{n}": s.path for n, s in enumerate(recipe.prompts.sources)}
    if recipe.prompts.keep_out is not None:
        names = enumerate(recipe.prompts.keep_out.sources)
        sources |= {f"prompts.keep_out.sources.{n}": name for n, name in names}
    text = "the run would overwrite it, because it is in the directory of the output"
    return [
        Problem(where, f"'{path}': {text}", "Use another directory as output")
        for where, path in sources.items()
        if Path(path).resolve() in written
    ]


# ---- scorers ----


def scorers_of(recipe: MakeRecipe) -> tuple[dict[str, Scorer], list[Problem]]:
    """Return the scorers by the names of their scores, and what is wrong with the others."""
    scorers: dict[str, Scorer] = {}
    problems: list[Problem] = []
    for name, section in recipe.score.items():
        where = f"score.{name}"
        try:
            kind = load(SCORERS, section.scorer, f"{where}.scorer")
        except UniDPOError as error:
            problems += error.problems
            continue
        owner = f"the scorer '{section.scorer}'"
        typed, wrong = typed_parameters(kind, section.parameters, where, owner)
        scorer, refused = (None, []) if wrong else build_parameters(kind, typed, where)
        problems += [*wrong, *refused]
        if scorer is not None:
            problems += _upstream_problems(name, scorer, scorers, list(recipe.score))
            scorers[name] = scorer
    return scorers, problems


def scorer_name(making: Making, score: str) -> str:
    """Return the name of the scorer that gives a score; of a scorer in a file, that of the file."""
    return Path(making.recipe.score[score].scorer).name


def _upstream_problems(
    name: str, scorer: Scorer, before: Mapping[str, Scorer], names: Sequence[str]
) -> Iterator[Problem]:
    earlier = names[: names.index(name)]
    missing = [other for other in scorer.upstream() or () if other not in before]
    for other in missing:
        if other in earlier:  # its own problem is reported
            continue
        text = f"there is no score '{other}' before it{suggestion(other, before)}"
        remedy = f"Use one of {', '.join(before)}" if before else "Add the scorers to combine"
        yield Problem(f"score.{name}", text, remedy)
    if not missing:
        scales = {other: scorer.scale for other, scorer in before.items()}
        for text in scorer.check(scales):
            yield Problem(f"score.{name}", text, "Change its parameters")


def _check_scorers(recipe: MakeRecipe) -> list[Problem]:
    return scorers_of(recipe)[1]


# ---- sampling ----


def _check_sampling(recipe: MakeRecipe) -> list[Problem]:
    sample, problems = recipe.sample, []
    samples = sample.responses != "given"
    if samples and recipe.model is None and sample.server is None and sample.batch_files is None:
        text = "responses are sampled, and no model is set"
        remedy = "Set model, sample.server or sample.batch_files, or set sample.responses to given"
        problems.append(Problem("model", text, remedy))
    if sample.server is not None and sample.batch_files is not None:
        text = "responses come from a server or from batch files, not from both"
        problems.append(Problem("sample.batch_files", text, "Remove one of the two"))
    batch = sample.batch_files
    if batch is not None and batch.model is None and recipe.model is None:
        text = "requests need the name of the model"
        problems.append(Problem("sample.batch_files", text, "Set its key 'model'"))
    if samples and sample.temperature == 0 and sample.n > 1:
        text = f"with a temperature of 0, all {sample.n} responses to a prompt are equal"
        problems.append(Problem("sample.n", text, "Set n to 1, or a temperature above 0"))
    return problems


# ---- pairs ----


def gates_of(recipe: MakeRecipe) -> tuple[dict[str, list[Condition]], list[Problem]]:
    """Return the conditions on chosen and rejected responses, and what is wrong with others."""
    gates: dict[str, list[Condition]] = {"chosen": [], "rejected": []}
    problems = []
    for side, texts in recipe.pair.gates.items():
        for number, text in enumerate(texts):
            condition = parse_condition(text)
            where = f"pair.gates.{side}.{number}"
            if condition is None:
                remedy = "Use a score, an operator and a number, such as claims >= 0"
                problems.append(Problem(where, f"'{text}' is not a condition", remedy))
            elif condition.score not in recipe.score:
                problems.append(_no_score(where, condition.score, recipe))
            else:
                gates[side].append(condition)
    return gates, problems


def _unused_limits(pair: PairSection) -> Iterator[Problem]:
    """Yield the limits that pairs of the sources do not have, as they stay as they are."""
    for key in ("gates", "min_margin"):
        if getattr(pair, key):
            text = "the rule 'given' keeps the pairs of the sources, whatever their scores are"
            yield Problem(f"pair.{key}", text, "Remove it, or use another rule")


def _no_score(where: str, name: str, recipe: MakeRecipe) -> Problem:
    names = list(recipe.score)
    remedy = f"Use one of {', '.join(names)}" if names else "Add a scorer to 'score'"
    return Problem(where, f"there is no score '{name}'{suggestion(name, names)}", remedy)


def _check_pairs(recipe: MakeRecipe) -> list[Problem]:
    pair = recipe.pair
    problems = gates_of(recipe)[1]
    for key in ("score", "right"):
        name = getattr(pair, key)
        if name is not None and name not in recipe.score:
            problems.append(_no_score(f"pair.{key}", name, recipe))
    scorers, invalid = scorers_of(recipe)
    if pair.rule == "given" and recipe.sample.responses == "sampled":
        text = "the pairs of the sources refer to their responses, which are not used"
        problems.append(Problem("pair.rule", text, "Set sample.responses to given or both"))
    if not recipe.score and recipe.sample.responses != "given" and pair.rule != "given":
        text = "without a score, no response is better than another one"
        problems.append(Problem("score", text, "Add a scorer (unidpo-mm list scorers)"))
    if not recipe.score and recipe.sample.responses == "both" and pair.rule == "given":
        text = "without a score, sampled responses are in no pair"
        remedy = "Add a scorer (unidpo-mm list scorers), or set sample.responses to given"
        problems.append(Problem("score", text, remedy))
    if pair.rule == "given":
        problems += _unused_limits(pair)
    if pair.rule.startswith("right_") and not invalid and right_score(recipe, scorers) is None:
        text = f"the rule '{pair.rule}' needs to know which answers are right"
        remedy = "Add a scorer 'verifier', or set pair.right to the score that says so"
        problems.append(Problem("pair.rule", text, remedy))
    scorer = scorers.get(recipe.pair_score or "")
    if scorer is not None and scorer.scale is not None:
        low, high = scorer.scale
        if pair.min_margin > high - low:
            text = f"scores from {low:g} to {high:g} never differ by {pair.min_margin:g}"
            problems.append(Problem("pair.min_margin", text, f"Use at most {high - low:g}"))
    return problems


def right_score(recipe: MakeRecipe, scorers: Mapping[str, Scorer]) -> str | None:
    """Return the name of the score that is at its maximum for right answers; `None` without one."""
    if recipe.pair.right is not None:
        return recipe.pair.right
    names = [name for name, section in recipe.score.items() if section.scorer == "verifier"]
    return names[0] if len(names) == 1 else None
