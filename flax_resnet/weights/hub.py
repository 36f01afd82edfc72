"""Published weights from the Hugging Face Hub, which also hosts timm's."""

import os
from pathlib import Path

from flax_resnet.text import error_reason
from flax_resnet.weights.tensors import REPOSITORY_FILES, WeightsError

_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".msgpack", ".h5", ".keras", ".npz")


def is_path(source: str) -> bool:
    """Return whether a text that names weights is a path, as opposed to an id of the hub."""
    if "#" in source and not os.path.exists(source):
        source = source.rpartition("#")[0]  # FILE#PART
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith(_ENDINGS):
        return True
    return os.path.exists(source) or os.path.isdir(source.partition("/")[0])


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
        " from_pretrained(FILE)"
    )
