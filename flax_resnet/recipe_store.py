"""The recipe of a run with own parts: its copy in the workdir, and whether it may be run.

``recipe/`` of the workdir holds the recipe and its local modules, ``run.json`` their checksums.
Code from a workdir never runs unless the user says so. The recipe at its original place does if it
is unchanged and this user has started a training with it: otherwise a workdir from elsewhere could
name any file.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax_resnet.files import read_file, write_atomically
from flax_resnet.recipes import MAX_BYTES, Recipe, digest, running
from flax_resnet.registry import SESSION, missing_parts
from flax_resnet.schema import mapping, record, text
from flax_resnet.text import error_reason

FOLDER = "recipe"
_sha256 = text(64)


class RecipeError(ValueError):
    """The recipe of a run cannot be used; the message has one line."""


class UntrustedRecipeError(RecipeError):
    """Only the copy in the workdir is left, and the user did not say to run it."""


@dataclass(frozen=True)
class RecipeInfo:
    """What ``run.json`` says about the recipe of a run.

    Attributes:
      path: where it was when the run started.
      sha256: checksum of its source.
      modules: ``{key: (path, checksum)}`` of its modules, as in :class:`Recipe`.
    """

    path: str
    sha256: str
    modules: dict[str, tuple[str, str]]

    @property
    def digest(self) -> str:
        """Digest of the recipe."""
        return digest(
            {"": self.sha256} | {key: sha256 for key, (_, sha256) in self.modules.items()}
        )


_path = text(4096, any_path=True)
_KEY = re.compile(r"\w+(/\w+)*\.py")


def _info(**fields: Any) -> RecipeInfo:
    for key in fields["modules"]:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a module")
    return RecipeInfo(**fields)


RECIPE_INFO = record(
    _info,
    path=_path,
    sha256=_sha256,
    modules=mapping(record(lambda path, sha256: (path, sha256), path=_path, sha256=_sha256)),
)


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Return what ``run.json`` says about a recipe."""
    sums = recipe.checksums
    modules = {
        key: {"path": path, "sha256": sums[key]} for key, (path, _) in recipe.modules.items()
    }
    return {"path": recipe.path, "sha256": sums[""], "modules": modules}


def store(workdir: str, recipe: Recipe) -> None:
    """Write the copy of a recipe; raise OSError if that fails."""
    copies = {_main_copy(workdir, recipe.path): recipe.source}
    copies |= {_module_copy(workdir, key): source for key, (_, source) in recipe.modules.items()}
    for path, source in copies.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(path, source)


def use_recipe(
    workdir: str, parts: Sequence[str], info: RecipeInfo | None, trust_copy: bool = False
) -> None:
    """Register the own parts of a run again, unless they are registered in this process.

    Args:
      workdir: the run's folder.
      parts: kinds and names of the parts, such as ``"block sk"``.
      info: their recipe; None if they were registered outside of one.
      trust_copy: whether to run the copy in the workdir if there is no other.

    Raises:
      UntrustedRecipeError, RecipeError: see :func:`find`; or the recipe fails, or lacks a part.
    """
    owner = SESSION if info is None else info.digest
    if not missing_parts(parts, owner):
        return
    if info is None:
        missing = ", ".join(missing_parts(parts, owner))
        raise UntrustedRecipeError(
            f"the run in {workdir!r} has own parts that were registered in a Python session:"
            f" {missing}; register them before you load it, which only Python can do"
        )
    try:
        with running(find(workdir, info, trust_copy)):
            pass
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error_reason(error)}"
        raise RecipeError(f"the recipe {info.path!r} of {workdir!r} fails: {reason}") from error
    if missing := missing_parts(parts, owner):
        raise RecipeError(
            f"the recipe {info.path!r} of {workdir!r} does not register {', '.join(missing)} when"
            " it is imported; do that at its top level, not in a function"
        )


def find(workdir: str, info: RecipeInfo, trust_copy: bool = False) -> Recipe:
    """Return the recipe of a run, from its original place, else with ``trust_copy`` from its copy.

    Raises:
      UntrustedRecipeError: it is no longer at its original place as it was, or was never used by
        this user, and ``trust_copy`` is False.
      RecipeError: the copy is missing or does not match its checksums.
    """
    copy = _read(
        info,
        _main_copy(workdir, info.path),
        {key: _module_copy(workdir, key) for key in info.modules},
    )
    if isinstance(copy, str):
        raise RecipeError(
            f"the copy of the recipe in {os.path.join(workdir, FOLDER)!r} is not that of the run:"
            f" {copy}"
        )
    original = _read(info, info.path, {key: path for key, (path, _) in info.modules.items()})
    if isinstance(original, Recipe) and _is_trusted(original):
        return original
    if trust_copy:
        return copy
    reason = original if isinstance(original, str) else "you have not trained with it here"
    raise UntrustedRecipeError(
        f"the run in {workdir!r} has parts of its own recipe {info.path!r}: {reason}. To run the"
        " copy in the workdir, read it and add --trust_recipe (from Python: trust_recipe=True)"
    )


def trust(recipe: Recipe) -> None:
    """Note that this user runs the recipe, so that later commands use it while it is unchanged."""
    with contextlib.suppress(OSError):  # otherwise they need --trust_recipe
        path = _trusted_folder() / recipe.digest
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch()


def _is_trusted(recipe: Recipe) -> bool:
    return (_trusted_folder() / recipe.digest).is_file()


def _trusted_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "flax_resnet" / "recipes"


def _read(info: RecipeInfo, main: str, modules: dict[str, str]) -> Recipe | str:
    """Return the recipe in these files, or how they differ from ``info``."""
    sources = []
    checksums = [info.sha256, *(checksum for _, checksum in info.modules.values())]
    for path, checksum in zip((main, *modules.values()), checksums, strict=True):
        try:
            sources.append(read_file(path, MAX_BYTES))
        except OSError as error:
            return f"{path}: {error.strerror}"
        if hashlib.sha256(sources[-1]).hexdigest() != checksum:
            return f"{path} has changed"
    # Tracebacks name the original paths.
    paths = [path for path, _ in info.modules.values()]
    contents = zip(paths, sources[1:], strict=True)
    return Recipe(info.path, sources[0], dict(zip(info.modules, contents, strict=True)))


def _main_copy(workdir: str, path: str) -> str:
    return os.path.join(workdir, FOLDER, os.path.basename(path))


def _module_copy(workdir: str, key: str) -> str:
    return os.path.join(workdir, FOLDER, "modules", *key.split("/"))
