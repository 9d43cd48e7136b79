"""The file of predictions of one model on one benchmark, and when it may be continued."""

from typing import Any

from unidpo_mm.inference.store import ResponseStore
from unidpo_mm.inference.template_variables import TRAINED_WITH


class PredictionStore(ResponseStore):
    """The predictions of one model on one benchmark."""

    noun = "prediction"
    unstable = frozenset({"first_prompt", TRAINED_WITH})
    unrecorded = {  # noqa: RUF012 - declared by the base class
        "sampling": "not recorded: earlier versions omitted parameters, which servers such as vLLM "
        "then take from the model's generation_config.json"
    }

    def stable(self, name: str, value: Any) -> Any:
        """Return what has to be equal: of a protocol its name; its rules affect no prediction.

        Prompt, decoding and image limits, which a new version may change, are recorded separately.
        """
        return str(value).partition("@")[0].partition("+")[0] if name == "protocol" else value
