"""Recipes: Python files that make a configuration and may register own parts.

A recipe runs with the local modules that it imports, exactly as they were read, and leaves nothing
in ``sys.modules``: two recipes may each have a module ``blocks``.
"""

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from flax_resnet.files import read_file
from flax_resnet.registry import owned_by

MAX_BYTES = 10 << 20  # of one file
_MAX_MODULES = 300
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Recipe:
    """A recipe's source with the local modules that it imports.

    Attributes:
      path: the file.
      source: its content.
      modules: paths and contents of the modules, by their paths below the folder they are
        imported from, such as ``"mylib/blocks.py"``.
    """

    path: str
    source: bytes = field(repr=False)
    modules: Mapping[str, tuple[str, bytes]] = field(repr=False, hash=False)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the source, as ``""``, and of each module."""
        sources = {"": self.source} | {key: source for key, (_, source) in self.modules.items()}
        return {key: hashlib.sha256(source).hexdigest() for key, source in sources.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the paths, which identifies a recipe."""
        return digest(self.checksums)


def digest(checksums: Mapping[str, str]) -> str:
    """Return :attr:`Recipe.digest` for :attr:`Recipe.checksums`."""
    text = repr(sorted(checksums.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def read_recipe(path: str) -> Recipe:
    """Read a recipe and the local modules that it imports, without running them.

    Local are modules beside the recipe or in ``sys.path``, but outside of the standard library,
    the installed packages and this project. Modules whose names a program computes are not found.

    Raises:
      OSError: a file cannot be read.
      SyntaxError: a file is not Python.
      ValueError: there are too many modules.
    """
    path = os.path.abspath(path)
    source = read_file(path, MAX_BYTES)
    modules: dict[str, tuple[str, bytes]] = {}
    search = [*sys.path, os.path.dirname(path)]  # last: it hides no installed module
    left = [(source, path, "")]
    while left:
        for name in _imported_names(*left.pop()):
            found = _find_local(name, search)
            if found is None or found[0] in modules:
                continue
            key, file, package = found
            modules[key] = file, read_file(file, MAX_BYTES)
            left.append((modules[key][1], file, package))
            if len(modules) > _MAX_MODULES:
                raise ValueError(f"it imports more than {_MAX_MODULES} local modules")
    return Recipe(path, source, modules)


@contextlib.contextmanager
def running(recipe: Recipe) -> Iterator[ModuleType]:
    """Run a recipe and yield its module, whose functions may import local modules meanwhile.

    Parts that are registered meanwhile belong to the recipe.

    Raises:
      Exception: whatever the recipe raises.
    """
    name = f"recipe_{recipe.digest[:16]}"
    before, finder = sys.modules.copy(), _Finder(recipe)
    for other in finder.names():
        sys.modules.pop(other, None)
    module = ModuleType(name)
    module.__file__ = recipe.path
    sys.modules[name] = module
    sys.meta_path.insert(0, finder)
    try:
        with owned_by(recipe.digest):
            exec(compile(recipe.source, recipe.path, "exec"), vars(module))
            yield module
    finally:
        sys.meta_path.remove(finder)
        # Without them here, worker processes get functions and classes by value.
        for other in (name, *finder.names()):
            sys.modules.pop(other, None)
            if other in before:
                sys.modules[other] = before[other]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of a recipe from their contents."""

    def __init__(self, recipe: Recipe):
        self._modules = recipe.modules

    def names(self) -> set[str]:
        """Return the names of the modules and their packages."""
        paths = [key.removesuffix(".py").removesuffix("/__init__") for key in self._modules]
        return {name for path in paths for name in _with_packages(path.replace("/", "."))}

    def find_spec(self, name, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of a module of the recipe, else None."""
        if name not in self.names():
            return None
        key = name.replace(".", "/")
        file = next((f for f in (f"{key}.py", f"{key}/__init__.py") if f in self._modules), None)
        package = file != f"{key}.py"
        spec = importlib.machinery.ModuleSpec(
            name, self, origin=file and self._modules[file][0], is_package=package
        )
        spec.has_location, spec.loader_state = file is not None, file
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source; that of a package without ``__init__.py`` is empty."""
        file = module.__spec__.loader_state
        if file is not None:
            path, source = self._modules[file]
            exec(compile(source, path, "exec"), vars(module))


def _imported_names(source: bytes, path: str, package: str) -> list[str]:
    """Return the names of modules that a source imports, and of what might be modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                with contextlib.suppress(ImportError):  # running it raises the error
                    module = importlib.util.resolve_name("." * node.level + module, package)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return [name for full in names for name in _with_packages(full)]


def _with_packages(name: str) -> list[str]:
    """Return ``["a", "a.b", "a.b.c"]`` for ``"a.b.c"``."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _find_local(name: str, search: Sequence[str]) -> tuple[str, str, str] | None:
    """Return key, file and package of a local module; None if there is none of that name."""
    path, spec = list(search), None
    for full in _with_packages(name):
        spec = importlib.machinery.PathFinder.find_spec(full, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    file = spec.origin if spec is not None else None
    if not file or not file.endswith(".py") or not _is_local(file):
        return None
    key, package = name.replace(".", "/"), name.rpartition(".")[0]
    if os.path.basename(file) == "__init__.py":
        key, package = f"{key}/__init__", name
    return f"{key}.py", os.path.abspath(file), package


def _is_local(file: str) -> bool:
    paths = sysconfig.get_paths()
    installed = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [*site.getsitepackages(), site.getusersitepackages()]
    installed += [str(_ROOT / package) for package in ("flax_resnet", "train", "configs")]
    real = os.path.realpath(file)
    return not any(real.startswith(os.path.join(os.path.realpath(p), "")) for p in installed)
