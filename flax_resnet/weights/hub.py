"""Published weights from the Hugging Face Hub, which also hosts timm's."""

from pathlib import Path
from typing import Any

from flax_resnet.resnet import ResNet
from flax_resnet.text import error_reason, truncate
from flax_resnet.variants import list_models
from flax_resnet.weights.loading import load_weights
from flax_resnet.weights.tensors import REPOSITORY_FILES, WeightsError


def load_pretrained(
    identity: str,
    *,
    model: str | ResNet | None = None,
    num_classes: int | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Download published weights from the Hugging Face Hub and load them.

    >>> variables = load_pretrained("resnet50.a1_in1k", num_classes=10)
    >>> model = create_model("resnet50", num_classes=10)

    Args:
      identity: an id of timm, or ``OWNER/REPOSITORY`` such as ``microsoft/resnet-50``.
      model: the network; required if the id does not begin with its name.
      num_classes: see :func:`load_weights`.
      revision: a branch, tag or commit.

    Returns:
      ``{"params", "batch_stats"}``, as :func:`load_weights` does.

    Raises:
      WeightsError: the extra ``pretrained`` is not installed, or the network or the id does
        not exist.
    """
    if model is None:
        model = model_name(identity)
    return load_weights(model, download(identity, revision), num_classes=num_classes)


def model_name(identity: str) -> str:
    """Return the model name in an id: resnet50 for resnet50.a1_in1k and microsoft/resnet-50.

    Raises:
      WeightsError: no model has this name.
    """
    name = identity.rpartition("/")[2].partition(".")[0].replace("-", "").lower()
    if name not in list_models():
        raise WeightsError(
            f"{truncate(identity)} does not begin with a model name ({truncate(name)!r} is not in"
            " list_models()); pass the network as model=…"
        )
    return name


def download(identity: str, revision: str | None = None) -> Path:
    """Return the path of an id's weight file, downloaded or from huggingface_hub's cache.

    Args:
      identity: an id of timm such as ``resnet50.a1_in1k``, or ``OWNER/REPOSITORY``.
      revision: a branch, tag or commit.

    Raises:
      WeightsError: the extra ``pretrained`` is not installed, the hub cannot be reached, or it
        has no such id or no weight file for it.
    """
    repository = identity if "/" in identity else f"timm/{identity}"
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise WeightsError(
            f"downloading {identity} needs huggingface_hub: pip install 'flax-resnet[pretrained]'"
        ) from None
    for name in REPOSITORY_FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except errors.LocalEntryNotFoundError as error:
            raise _unreachable(repository, error) from error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            at = f" at {revision}" if revision else ""
            raise WeightsError(
                f"the hub has no {repository}{at}, or it is not public; check the id"
            ) from error
        except errors.HFValidationError as error:
            raise WeightsError(
                f"{identity!r} is not a valid hub id: {error_reason(error)}"
            ) from error
        except Exception as error:  # the HTTP library's errors, which depend on its version
            raise _unreachable(repository, error) from error
    raise WeightsError(f"{repository} has none of {', '.join(REPOSITORY_FILES)}")


def _unreachable(repository: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{repository} could not be downloaded ({type(error).__name__}) and is not in the cache:"
        " check the network, or download its model.safetensors elsewhere and call"
        " load_weights(NAME, FILE)"
    )
