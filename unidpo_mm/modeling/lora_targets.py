"""Restriction of LoRA adapters to parts of a model that are not frozen.

PEFT matches targets by the end of a module's name. In a vision-language model `q_proj` therefore
means the layers of the language model and those of the vision tower. Here modules of frozen parts
are excluded, and a target that matches no other module is an error.
"""

import copy
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ..adapter import AdapterFamily, Part
from ..errors import ModelError, Problem
from ..plugins import suggestion

__all__ = ["PYTHON_KEYS", "RECIPE_KEYS", "Keys", "LoraTargets", "check_rank", "part_of"]

logger = logging.getLogger(__name__)

PEFT_PREFIX = "base_model.model."
ALL_LINEAR = "all-linear"


class Keys(NamedTuple):
    """The names of the settings in the interface in use, for messages."""

    targets: str
    rank: str
    modules_to_save: str
    freeze: str


RECIPE_KEYS = Keys(
    "model.lora.targets", "model.lora.r", "model.lora.modules_to_save", "model.freeze"
)
PYTHON_KEYS = Keys(
    "peft_config.target_modules", "peft_config.r", "peft_config.modules_to_save", "freeze"
)


def part_of(name: str, parts: Mapping[Part, Sequence[str]]) -> Part:
    """Return the part that a parameter or module of a model belongs to.

    The longest matching prefix wins; a name that no prefix matches belongs to ``other``.
    """
    name = name.removeprefix(PEFT_PREFIX)
    matches = [
        (len(prefix), part)
        for part, prefixes in parts.items()
        for prefix in prefixes
        if prefix == "" or name == prefix or name.startswith(prefix + ".")
    ]
    return max(matches)[1] if matches else "other"


def check_rank(policy: nn.Module, keys: Keys) -> None:
    """Compare the rank of a new LoRA adapter with the layers that it adapts.

    A matrix has no more directions than its smaller side: a larger rank costs memory and cannot
    express more.

    Raises:
        ModelError: If the rank is larger than every adapted layer; if it is larger than some of
            them, a warning lists those.
    """
    from peft.tuners.lora import LoraLayer

    smaller: dict[str, int] = {}
    largest, rank, fitting = 0, 0, 0
    for name, module in policy.named_modules():
        for adapter, its_rank in module.r.items() if isinstance(module, LoraLayer) else ():
            side = min(module.in_features, module.out_features)
            if adapter not in module.active_adapters or side < 1:
                continue
            rank, largest = max(rank, its_rank), max(largest, side)
            if its_rank > side:
                smaller[f"{name.rpartition('.')[2]} ({side})"] = side
            else:
                fitting += 1
    if not smaller:
        return
    listed = ", ".join(sorted(smaller, key=lambda text: smaller[text]))
    if fitting:
        logger.warning(
            "%s: the rank %d is larger than the smaller side of %s, where it cannot express more "
            "than that side",
            keys.rank,
            rank,
            listed,
        )
        return
    problem = f"the rank {rank} is larger than the smaller side of every adapted layer: {listed}"
    raise ModelError(Problem(keys.rank, problem, f"Use at most {largest}, for example 16"))


@dataclass(kw_only=True)
class LoraTargets:
    """The names in a PEFT configuration, matched with the modules of a model.

    Attributes:
        model: The model, without PEFT.
        family: The family, which knows the parts.
        frozen: Parts that an adapter must not change.
        keys: The names of the settings.
        by_default: Whether the parts are frozen by default, not by the user.
    """

    model: nn.Module
    family: AdapterFamily
    frozen: tuple[Part, ...]
    keys: Keys
    by_default: bool

    def __post_init__(self) -> None:
        self.modules = [name for name, _ in self.model.named_modules() if name]
        self.problems: list[Problem] = []

    def restrict(self, config: Any) -> Any:
        """Return a copy of a PEFT configuration that excludes the modules of frozen parts.

        Raises:
            ModelError: If a target matches no module or only frozen modules; with all problems.
        """
        config = copy.deepcopy(config)
        self._fill_targets(config)
        self._check_targets(config)
        self._restrict_modules_to_save(config)
        self._restrict_parameters(config)
        if not self.problems:
            self._exclude_frozen(config)
        if self.problems:
            raise ModelError(self.problems)
        return config

    def _is_frozen(self, name: str) -> bool:
        return part_of(name, self.family.parts) in self.frozen

    def _fill_targets(self, config: Any) -> None:
        """Set the targets that PEFT would choose by the type of the model."""
        if config.target_modules is not None or getattr(config, "target_parameters", None):
            return
        from peft import PEFT_TYPE_TO_TUNER_MAPPING

        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        kind = str(getattr(self.model.config, "model_type", ""))
        targets = getattr(tuner, "target_module_mapping", {}).get(kind)
        if targets is not None:
            config.target_modules = targets if isinstance(targets, str) else set(targets)
            return
        problem = f"it is not set, and PEFT has no default for the model type '{kind}'"
        remedy = f"Set it, for example to {self._examples()}"
        self.problems.append(Problem(self.keys.targets, problem, remedy))

    def _check_targets(self, config: Any) -> None:
        """Check that every target matches a module that does not belong to a frozen part."""
        targets = config.target_modules
        if targets is None or targets == ALL_LINEAR:
            return
        if isinstance(targets, str):
            self._check(self.keys.targets, targets, self._matching_pattern(targets))
            return
        if not targets and not getattr(config, "target_parameters", None):
            problem, remedy = "the list is empty", f"Set it, for example to {self._examples()}"
            self.problems.append(Problem(self.keys.targets, problem, remedy))
        for target in sorted(targets):
            self._check(self.keys.targets, target, _ending(self.modules, target))

    def _restrict_modules_to_save(self, config: Any) -> None:
        """Check modules that train in full; exclude frozen modules that a name also matches.

        Modules of a part that is frozen by default are allowed, because the user wants to train
        them.
        """
        names = getattr(config, "modules_to_save", None)
        resolved: list[str] = []
        for name in names or ():
            matched = _ending(self.modules, name)
            kept = [module for module in matched if not self._is_frozen(module)]
            if kept or not self.by_default:
                self._check(self.keys.modules_to_save, name, matched)
            elif not matched:
                self._check(self.keys.modules_to_save, name, [])
            resolved += kept if kept and len(kept) < len(matched) else [name]
        if names:
            config.modules_to_save = resolved

    def _restrict_parameters(self, config: Any) -> None:
        """Check parameters that are targets, such as those of fused experts."""
        targets = getattr(config, "target_parameters", None)
        parameters = [name for name, _ in self.model.named_parameters()]
        resolved: list[str] = []
        where = self.keys.targets.replace("target_modules", "target_parameters")
        for target in targets or ():
            matched = _ending(parameters, target)
            kept = [name for name in matched if not self._is_frozen(name)]
            self._check(where, target, matched, what="parameter")
            resolved += kept if len(kept) < len(matched) else [target]
        if targets:
            config.target_parameters = resolved

    def _exclude_frozen(self, config: Any) -> None:
        """Exclude the modules of frozen parts; check that a module remains."""
        from peft.tuners.tuners_utils import check_target_module_exists

        if config.target_modules is None:
            return
        if config.target_modules == ALL_LINEAR:
            reached = [
                name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)
            ]
            if not reached:  # PEFT knows further kinds of linear layers
                return
        else:
            reached = [name for name in self.modules if check_target_module_exists(config, name)]
        if any(map(self._is_frozen, reached)):
            config.exclude_modules = self._excluding(getattr(config, "exclude_modules", None))
        if all(map(self._is_frozen, reached)) and not getattr(config, "target_parameters", None):
            reason = self._frozen_text() if reached else "see the other LoRA settings"
            problem = f"no module remains to adapt ({reason})"
            remedy = f"Choose other targets, or change {self.keys.freeze} or exclude_modules"
            self.problems.append(Problem(self.keys.targets, problem, remedy))

    def _check(
        self, where: str, target: str, matched: Sequence[str], *, what: str = "module"
    ) -> None:
        if not matched:
            leaves = {name.rpartition(".")[2] for name in self.modules}
            near = suggestion(target, [*sorted(leaves - {"0", "1"}), *self.family.parts])
            problem = f"no {what} of the model matches '{target}'{near}"
            remedy = f"Use names of {what}s, for example {self._examples()}"
            if what == "module" and _ending(self.modules, target):
                problem = f"a string is a regular expression, and '{target}' matches no module"
                remedy = f"Use a list, ['{target}'], or '.*{target}'"
            self.problems.append(Problem(where, problem, remedy))
        elif all(map(self._is_frozen, matched)):
            problem = f"'{target}' matches only modules that do not train ({self._frozen_text()})"
            parts = {part_of(name, self.family.parts) for name in matched}
            unfrozen = [part for part in self.frozen if part not in parts]
            remedy = f"Remove it, or set {self.keys.freeze} to {unfrozen} to adapt them"
            self.problems.append(Problem(where, problem, remedy))

    def _matching_pattern(self, pattern: str) -> list[str]:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            problem = f"'{pattern}' is not a valid regular expression ({error})"
            remedy = "Correct it, or use a list of names"
            raise ModelError(Problem(self.keys.targets, problem, remedy)) from error
        return [name for name in self.modules if compiled.fullmatch(name)]

    def _excluding(self, users: Any) -> str:
        """Return a pattern for the modules of frozen parts and those that the user excludes."""
        parts = self.family.parts
        frozen = [prefix for part in self.frozen for prefix in parts[part]]
        # a trainable part may be inside a frozen one
        inner = [
            prefix
            for part, prefixes in parts.items()
            if part not in self.frozen
            for prefix in prefixes
            if any(prefix.startswith(outer + ".") for outer in frozen)
        ]
        carved = f"(?!(?:{_alternatives(inner)})(?:\\.|$))" if inner else ""
        pattern = f"{carved}(?:{_alternatives(frozen)})(?:\\..*)?" if all(frozen) else ".*"
        if isinstance(users, str):
            return f"(?:{users})|(?:{pattern})"
        if users:
            return f"(?:.*\\.)?(?:{_alternatives(users)})|(?:{pattern})"
        return pattern

    def _frozen_text(self) -> str:
        names = ", ".join(self.frozen)
        if self.by_default:
            return f"the family '{self.family.name}' freezes {names} by default"
        return f"{self.keys.freeze} contains {names}"

    def _examples(self) -> str:
        leaves = [
            name.rpartition(".")[2]
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and not self._is_frozen(name)
        ]
        return str(list(dict.fromkeys(leaves))[:4])


def _ending(names: Iterable[str], end: str) -> list[str]:
    """Return the names that PEFT matches with a target: equal to it or ending in it after a dot."""
    return [name for name in names if name == end or name.endswith(f".{end}")]


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(names)))
