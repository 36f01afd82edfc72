"""Exports as repositories of the Hugging Face hub: the card's front matter, and the upload."""

import importlib
import json
import os
from collections.abc import Iterator
from typing import Any

from flax_resnet.runs import Run
from flax_resnet.text import error_reason
from train.export.model_card import evaluation
from train.export.output import HUB_FILE, file_names, for_hub
from train.runtime.errors import RunError, UsageError

# Metrics of a run, with the hub's type and a name.
_ONE_LABEL = (("top1", "accuracy", "Accuracy"),)
_SEVERAL_LABELS = (("f1_macro", "f1", "F1 (macro)"), ("auroc_macro", "roc_auc", "AUROC (macro)"))
_LOGIN = "log in with 'hf auth login', or set HF_TOKEN to a token that may write"


def front_matter(run: Run, library: str) -> str:
    """Return the YAML block at the head of a card, which the hub lists and filters models by.

    Args:
      run: the exported run.
      library: the hub's name of the library that loads the folder.
    """
    fields: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "resnet", "flax-resnet", run.config["model.name"]],
    }
    logged = evaluation(run)
    measured = [
        {"type": type, "name": name, "value": round(value, 4)}
        for metric, type, name in (_SEVERAL_LABELS if run.several_labels else _ONE_LABEL)
        if (value := logged.get(metric)) is not None
    ]
    if measured:
        fields["model-index"] = [
            {
                "name": run.config["model.name"],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "name": run.config["dataset.name"],
                            "type": run.config["dataset.name"],
                        },
                        "metrics": measured,
                    }
                ],
            }
        ]
    # JSON is YAML, in which no text needs other quotes.
    lines = (f"{name}: {json.dumps(value)}" for name, value in fields.items())
    return "\n".join(["---", *lines, "---", "", ""])


def check_push(repository: str, format: str, output: str) -> None:
    """Check what can be checked of an upload before the export.

    Raises:
      UsageError: the export is no repository, or the name is not one of a repository.
      RunError: huggingface_hub is not installed, or no account is logged in.
    """
    if not for_hub(format, os.path.basename(output)):
        raise UsageError(
            f"--push is for huggingface and timm with --output FOLDER/{HUB_FILE}, not for {format}"
            f" with {output!r}"
        )
    hub = _huggingface_hub()
    try:
        hub.utils.validate_repo_id(repository)
    except hub.errors.HFValidationError as error:
        raise UsageError(f"--push {repository!r}: {error_reason(error)}") from error
    if repository.count("/") != 1:
        raise UsageError(f"--push {repository!r} must be OWNER/NAME")
    if not hub.get_token():
        raise RunError(f"--push needs a login to the hub: {_LOGIN}")


def push(repository: str, format: str, output: str, private: bool) -> Iterator[str]:
    """Upload an export as one commit, and yield progress lines.

    Args:
      repository: ``OWNER/NAME``; created if there is none.
      format: ``"huggingface"`` or ``"timm"``.
      output: path of the exported file.
      private: whether a new repository is private; otherwise the owner's default applies.

    Raises:
      RunError: the hub cannot be reached or refuses the upload.
    """
    hub = _huggingface_hub()
    folder, name = os.path.split(os.path.abspath(output))
    files = [file for file in file_names(format, name) if not file.endswith(".model_card.md")]
    operations = [
        hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=os.path.join(folder, file))
        for file in files
    ]
    api = hub.HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message="Export of flax-resnet")
    except Exception as error:  # those of the HTTP library depend on its version
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = f"; {_LOGIN}" if status in (401, 403) else ""
        raise RunError(
            f"cannot push to {repository}: {error_reason(error)}{advice}; the files are in"
            f" {folder!r}, and the same command uploads them later"
        ) from error
    yield f"pushed {', '.join(files)} to {commit.repo_url}"


def _huggingface_hub() -> Any:
    try:
        hub = importlib.import_module("huggingface_hub")
        for part in ("errors", "utils"):
            importlib.import_module(f"huggingface_hub.{part}")
    except ImportError:
        raise RunError(
            "--push needs huggingface_hub: pip install 'flax-resnet[pretrained]'"
        ) from None
    return hub
