"""Published weights from the Hugging Face Hub, which also hosts timm's and torchvision's."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from flax_resnet.text import error_reason
from flax_resnet.weights.published import torchvision_files
from flax_resnet.weights.published.source_preprocessing import COMPANIONS
from flax_resnet.weights.tensors import REPOSITORY_FILES, WeightsError

_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".msgpack", ".h5", ".keras", ".npz")
_TIMEOUT = 10  # seconds to reach the hub


class UnreachableError(WeightsError):
    """The hub cannot be reached and its cache lacks the weights.

    Attributes:
      problem: the message without the way out, which depends on the caller.
    """

    def __init__(self, repository: str, error: Exception):
        self.problem = (
            f"{repository} could not be downloaded ({type(error).__name__}) and is not in the"
            " cache: check the network"
        )
        super().__init__(
            f"{self.problem}, or download its model.safetensors elsewhere and call"
            " from_pretrained(FILE)"
        )


def is_path(source: str) -> bool:
    """Return whether a text that names weights is a path, as opposed to an id of the hub."""
    if "#" in source and not os.path.exists(source):
        source = source.rpartition("#")[0]  # FILE#PART
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith(_ENDINGS):
        return True
    return os.path.exists(source) or os.path.isdir(source.partition("/")[0])


def download(identity: str, revision: str | None = None) -> Path:
    """Return the path of an id's weight file, downloaded or from a cache.

    The files that describe its preprocessing lie in the same folder. torchvision's weights are
    taken from torchvision's folder, if they are there, or from timm's copy on the hub.

    Args:
      identity: an id of timm such as ``resnet50.a1_in1k``, ``OWNER/REPOSITORY``, or an id of
        torchvision such as ``ResNet50_Weights.IMAGENET1K_V2``.
      revision: a branch, tag or commit.

    Raises:
      WeightsError: the extra ``pretrained`` is not installed, the hub cannot be reached, or it
        has no such id or no weight file for it.
    """
    published = torchvision_files.find_by_id(identity)
    if published is not None and published.local_file.is_file():
        return published.local_file
    name = identity if published is None else published.timm_id
    repository = name if "/" in name else f"timm/{name}"
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise WeightsError(
            f"downloading {identity} needs huggingface_hub: pip install 'flax-resnet[pretrained]'"
        ) from None
    problem = _connection_problem()
    # The hub's client would repeat its requests for 23 seconds before it looks into its cache.
    options = {"revision": revision} | ({"local_files_only": True} if problem else {})
    with _quiet():
        for name in COMPANIONS:
            try:
                huggingface_hub.hf_hub_download(repository, name, **options)
            except errors.EntryNotFoundError:
                continue
            except Exception:  # reported below, if it concerns the weights too
                break
        for name in REPOSITORY_FILES:
            try:
                return Path(huggingface_hub.hf_hub_download(repository, name, **options))
            except errors.LocalEntryNotFoundError as error:
                if cached := _cached_weights(repository, revision):
                    return cached
                raise UnreachableError(repository, problem or error) from error
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
                raise UnreachableError(repository, error) from error
    raise WeightsError(f"{repository} has none of {', '.join(REPOSITORY_FILES)}")


def _connection_problem() -> Exception | None:
    """Return why the hub cannot be reached; None if it can, or if it is not to be used."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return None  # its client does not try
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT)
    except Exception as error:  # of the HTTP library
        return error
    return None


def _cached_weights(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repository, n, revision=revision) for n in REPOSITORY_FILES)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the client's log messages on repeated requests; its errors are raised."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
