"""The recipe of a run with own parts: its copy in the workdir, and whether it may be run.

``recipe/`` of the workdir holds the recipe and its local modules, ``run.json`` their checksums.
Code from a workdir runs only with the user's permission. The recipe at its original place runs if
it is unchanged and this user has trained with it there, as noted in ``flax_resnet/recipes`` of
``$XDG_STATE_HOME`` or ``~/.local/state``: otherwise a workdir from elsewhere could name any file.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax_resnet.files import read_file, write_atomically
from flax_resnet.recipes import MAX_BYTES, Recipe, digest, known, running
from flax_resnet.registry import SESSION, missing_parts
from flax_resnet.schema import mapping, record, text
from flax_resnet.text import error_reason

FOLDER = "recipe"
_CHANGED = "has changed"
_sha256 = text(64)


class RecipeError(ValueError):
    """The recipe of a run cannot be used; the message has one line."""


class UntrustedRecipeError(RecipeError):
    """Only the copy in the workdir is left, and the user did not permit to run it."""


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
    def checksums(self) -> dict[str, str]:
        """As :attr:`Recipe.checksums`."""
        return {"": self.sha256} | {key: sha256 for key, (_, sha256) in self.modules.items()}

    @property
    def digest(self) -> str:
        """Digest of the recipe."""
        return digest(self.checksums)


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
    """Write the copy of a recipe, beside those of earlier versions; raise OSError if that fails."""
    for key, path in _copies(workdir, recipe).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(path, recipe.sources[key])


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
    missing = missing_parts(parts, owner)
    if info is None:
        if missing:
            raise UntrustedRecipeError(
                f"the run in {workdir!r} has own parts that were registered in a Python session:"
                f" {', '.join(missing)}; register them before you load it, which only Python can do"
            )
        return
    if owner in known and not missing:
        return
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
      UntrustedRecipeError: it is no longer at its original place as it was, or this user never
        trained with it there, and ``trust_copy`` is False.
      RecipeError: the copy has changed, or is needed and missing.
    """
    copy = _read(info, _copies(workdir, info))
    if isinstance(copy, str) and copy.endswith(_CHANGED):
        raise RecipeError(f"the copy of the recipe in {workdir!r} is not that of the run: {copy}")
    places = {"": info.path} | {key: path for key, (path, _) in info.modules.items()}
    original = _read(info, places)
    if isinstance(original, Recipe) and _is_trusted(original):
        return original
    if not trust_copy:
        reason = (
            original if isinstance(original, str) else "no note says that you trained with it there"
        )
        raise UntrustedRecipeError(
            f"the run in {workdir!r} has parts of its own recipe {info.path!r}: {reason}. To run"
            " the copy in the workdir, read it and add --trust_recipe (from Python:"
            " trust_recipe=True)"
        )
    if isinstance(copy, str):
        raise RecipeError(f"the copy of the recipe of the run in {workdir!r} is missing: {copy}")
    return copy


def trust(recipe: Recipe) -> None:
    """Note that this user trains with the recipe where it lies.

    Later commands then run it from there while it is unchanged; otherwise they need the user's
    word.

    Raises:
      OSError: the note cannot be written.
    """
    path = _trust_file(recipe)
    if path is None:
        raise FileNotFoundError("the user has no home folder")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch()


def _is_trusted(recipe: Recipe) -> bool:
    path = _trust_file(recipe)
    try:
        return path is not None and all(
            entry.stat().st_uid == os.getuid() for entry in (path, path.parent)
        )
    except OSError:
        return False


def _trust_file(recipe: Recipe) -> Path | None:
    """Return the file of a recipe at its places; None if the user has no folder for it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # to be ignored, by the specification
        state = os.path.expanduser("~/.local/state")
    if not os.path.isabs(state):
        return None
    places = [recipe.path, *(path for path, _ in recipe.modules.values())]
    text = repr([recipe.digest, *map(os.path.realpath, places)])
    name = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return Path(state) / "flax_resnet" / "recipes" / name


def _read(info: RecipeInfo, paths: Mapping[str, str]) -> Recipe | str:
    """Return the recipe in files by key (``""``: itself), or how they differ from ``info``."""
    checksums, sources = info.checksums, {}
    for key, path in paths.items():
        try:
            sources[key] = read_file(path, MAX_BYTES)
        except OSError as error:
            return f"{path!r}: {error.strerror}"
        if hashlib.sha256(sources[key]).hexdigest() != checksums[key]:
            return f"{path!r} {_CHANGED}"
    # Tracebacks name the original paths.
    modules = {key: (path, sources[key]) for key, (path, _) in info.modules.items()}
    return Recipe(info.path, sources[""], modules)


def _copies(workdir: str, recipe: Recipe | RecipeInfo) -> dict[str, str]:
    """Return the path of each file's copy by its key (``""``: the recipe itself)."""
    files = {"": os.path.basename(recipe.path)} | {key: key for key in recipe.modules}
    folder = os.path.join(workdir, FOLDER, recipe.digest[:16])
    return {key: os.path.join(folder, *file.split("/")) for key, file in files.items()}
