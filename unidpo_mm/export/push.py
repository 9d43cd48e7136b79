"""Upload an exported model to the Hugging Face hub."""

from pathlib import Path

from ..errors import ModelError, Problem

__all__ = ["check_push", "push"]


def check_push(repository: str) -> None:
    """Check that a repository can be written to, before a model is exported.

    Raises:
        ModelError: If there is no access token, the name is invalid or the hub cannot be reached.
    """
    import os

    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    where = "--push"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        problem = f"'{repository}' is not the name of a repository"
        raise ModelError(Problem(where, problem, "Use OWNER/NAME")) from error
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ModelError(Problem(where, "HF_HUB_OFFLINE is set", "Unset it, or remove --push"))
    if not get_token():
        remedy = "Run hf auth login, or set HF_TOKEN"
        raise ModelError(Problem(where, "there is no access token", remedy))
    try:
        HfApi().whoami()
    except Exception as error:  # no network, or an invalid token
        reason = " ".join(str(error).split()).rstrip(".")
        problem = f"the hub cannot be reached with this token ({reason})"
        raise ModelError(Problem(where, problem, "Check network and token")) from error


def push(directory: Path, repository: str) -> str:
    """Upload the files of a directory to a private repository, and return its URL.

    A repository that exists keeps its visibility.

    Raises:
        ModelError: If the upload fails.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=directory, commit_message="Export of unidpo-mm"
        )
    except Exception as error:  # HTTP errors, timeouts, and refusals of the hub
        reason = " ".join(str(error).split()).rstrip(".")
        problem = f"the upload to '{repository}' failed ({reason})"
        remedy = f"Upload it later: hf upload {repository} {directory}"
        raise ModelError(Problem("--push", problem, remedy)) from error
    return str(url)
