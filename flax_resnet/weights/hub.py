"""Published weights from the Hugging Face hub, where timm's live too."""

from __future__ import annotations

from pathlib import Path

from flax_resnet.variants import list_models
from flax_resnet.weights.tensors import REPOSITORY_FILES, WeightsError, shortened


def model_of(identity: str) -> str:
    """The network's name in an id: ``resnet50.a1_in1k`` and ``microsoft/resnet-50`` → resnet50.

    Raises WeightsError where no network has that name.
    """
    name = identity.rpartition("/")[2].partition(".")[0].replace("-", "").lower()
    if name not in list_models():
        raise WeightsError(
            f"{shortened(identity)} does not begin with the name of a network here"
            f" ({shortened(name)!r} is none of list_models()); tell which with model=…"
        )
    return name


def fetch(identity: str, revision: str | None = None) -> Path:
    """Downloads an id's weight file, or finds it in huggingface_hub's cache.

    Args:
      identity: ``resnet50.a1_in1k``, one of timm's, or ``OWNER/REPOSITORY``.
      revision: a branch, tag or commit of it.

    Raises WeightsError where the extra is missing, the hub is out of reach, or has no
    such id or no weight file under it.
    """
    repository = identity if "/" in identity else f"timm/{identity}"
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise WeightsError(
            f"fetching {identity} needs huggingface_hub: pip install 'flax-resnet[pretrained]'"
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
            raise WeightsError(f"{identity!r} is no id of the hub: {error}") from error
        except Exception as error:  # the HTTP library's errors, which depend on its version
            raise _unreachable(repository, error) from error
    raise WeightsError(f"{repository} has none of {', '.join(REPOSITORY_FILES)}")


def _unreachable(repository: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{repository} could not be fetched ({type(error).__name__}) and is not in the cache:"
        " check the network, or fetch its model.safetensors elsewhere and call"
        " load_weights(NAME, FILE)"
    )
