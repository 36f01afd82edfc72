"""A trained run for the commands that use it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from flax_resnet import recipe_store
from flax_resnet.recipe_store import RecipeError, UntrustedRecipeError
from train.runtime.errors import RunError, UsageError

if TYPE_CHECKING:
    from flax_resnet.runs import Run  # imports JAX, which takes a second


def use_recipe(path: str, trust_copy: bool) -> None:
    """Register the own parts of a run; see :func:`flax_resnet.recipe_store.use_recipe`.

    Raises:
      UsageError: the user must decide whether to run the copy of the recipe in the workdir.
      RunError: the recipe cannot be used.
    """
    from train.workdir.run_files import find_description  # imports JAX

    info = find_description(path)
    if info is None:  # whatever reads it next reports the error
        return
    try:
        recipe_store.use_recipe(path, info.own_parts, info.recipe, trust_copy)
    except UntrustedRecipeError as error:
        raise UsageError(str(error)) from error
    except RecipeError as error:
        raise RunError(str(error)) from error


def read_kind(path: str) -> str | None:
    """Return the ``kind`` in ``run.json``, see :class:`flax_resnet.weights.run_info.RunInfo`.

    None if the file cannot be read, which :func:`load_trained_run` reports. JAX is not imported.
    """
    from flax_resnet.schema import SchemaError, optional, read_json, record, text

    file = os.path.join(os.path.expanduser(path), "run.json")
    with contextlib.suppress(OSError, SchemaError):
        return read_json(file, record(kind=optional(text(100))))["kind"]
    return None


def load_trained_run(
    path: str,
    step: int | str,
    weights: str | None,
    batch_size: int,
    trust_recipe: bool = False,
    kind: str | None = None,
) -> Run:
    """Call :func:`flax_resnet.load_run` with the checks and errors of commands.

    Raises:
      UsageError: the run lacks the step or weights.
      RunError: the run cannot be loaded.
    """
    config_file = os.path.join(os.path.expanduser(path), "config.json")
    if not os.path.exists(config_file):  # before JAX is imported
        raise RunError(f"{path!r} holds no run: there is no {config_file}")

    from flax_resnet import load_run
    from flax_resnet.runs import RequestError
    from flax_resnet.schema import read_error
    from flax_resnet.weights import WeightsError
    from train.config.loading import read_json_file

    try:
        run = load_run(
            path, step, weights, batch_size=batch_size, trust_recipe=trust_recipe, kind=kind
        )
        read_json_file(config_file)  # load_run checks only the keys that it uses
    except RequestError as error:
        raise UsageError(str(error)) from error
    except WeightsError as error:
        raise RunError(str(error)) from error
    except (OSError, ValueError) as error:
        raise RunError(read_error(config_file, error)) from error
    return run
