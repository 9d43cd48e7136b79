"""A reward model behind vLLM gives the scores that it gives in this process.

`make test-serving` runs this test, see `test_serving.py`.
"""

from pathlib import Path

import pytest
from support.real_servers import SIZES, VLLM_ENVIRONMENT, served, vllm_command
from support.response_candidates import candidates, score
from support.text_classifiers import reward_model_in

from unidpo_mm.pipelines.scorers.reward_model import RewardModel
from unidpo_mm.pipelines.scorers.served_reward_model import ServedRewardModel

pytestmark = [pytest.mark.serving, pytest.mark.timeout(1800)]


def test_vllm_gives_the_same_rewards(vllm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    reward_model_in(folder, sizes=SIZES)
    items = candidates(*[" ".join(["red", "blue", "two"][: n % 3 + 1] * (n + 1)) for n in range(9)])
    local = score(RewardModel(model=str(folder), dtype="float32"), items, tmp_path)
    command = vllm_command(vllm, folder, "reward", "--runner", "pooling")
    with served(command, VLLM_ENVIRONMENT, tmp_path / "log") as url:
        scorer = ServedRewardModel(url=url.removesuffix("/v1"), model="reward")
        rewards = score(scorer, items, tmp_path)
    assert rewards == pytest.approx(local, abs=1e-3)
    assert max(local) - min(local) > 1
