"""Recipes: Python files that make a configuration and may register own parts.

A recipe and the local modules that it imports run exactly as they were read, as modules of names
of their own: ``recipe_DIGEST`` and ``recipe_DIGEST_local.MODULE``. So two recipes may each have a
module ``blocks``, and an import inside a function works whenever it runs.
"""

import ast
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from flax_resnet.files import read_file
from flax_resnet.registry import forget, owned_by

PREFIX = "recipe_"  # of the names of modules
_LOCAL = "_local"  # ends the name of the package of local modules
MAX_BYTES = 10 << 20  # of one file
_MAX_MODULES = 300
_ROOT = Path(__file__).parent.parent
_lock = threading.RLock()  # the owner of what is registered is a global variable


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
    def sources(self) -> dict[str, bytes]:
        """The source, as ``""``, and that of each module."""
        return {"": self.source} | {key: source for key, (_, source) in self.modules.items()}

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of the sources."""
        return {key: hashlib.sha256(source).hexdigest() for key, source in self.sources.items()}

    @functools.cached_property  # imports ask for it
    def digest(self) -> str:
        """SHA-256 of everything but the paths, which identifies a recipe."""
        return digest(self.checksums)

    @property
    def module_name(self) -> str:
        """The name under which it runs."""
        return f"{PREFIX}{self.digest[:16]}"


known: dict[str, Recipe] = {}  # those that ran in this process, by digest


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


@contextmanager
def running(recipe: Recipe) -> Iterator[ModuleType]:
    """Run a recipe, and yield its module.

    Parts that are registered meanwhile belong to the recipe, instead of those that an earlier run
    of it registered.

    Raises:
      Exception: whatever the recipe raises; then none of its parts stays registered.
    """
    with _lock:
        owner, name = recipe.digest, recipe.module_name
        forget(owner)
        for other in [*sys.modules]:
            if other.startswith(name):
                del sys.modules[other]
        known[owner] = recipe
        try:
            with owned_by(owner):
                yield importlib.import_module(name)
        except BaseException:
            forget(owner)
            del known[owner]
            raise


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the known recipes and their modules from their contents."""

    def find_spec(self, name, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of a module of a recipe, else None."""
        if not name.startswith(PREFIX):
            return None
        main, local, inner = name.partition(_LOCAL)
        recipe = next((one for one in known.values() if one.module_name == main), None)
        if recipe is None:
            return None
        file, source, is_package = recipe.path, recipe.source, False
        if local:
            file, source, is_package = _locate(recipe, inner.lstrip("."))
        if source is None and not is_package:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=file, is_package=is_package)
        spec.has_location, spec.loader_state = file is not None, (recipe, file, source)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source; that of a package without ``__init__.py`` is empty."""
        recipe, file, source = module.__spec__.loader_state
        if source is not None:
            tree = _Renamer(recipe).visit(ast.parse(source, file))
            exec(compile(ast.fix_missing_locations(tree), file, "exec"), vars(module))


def _locate(recipe: Recipe, inner: str) -> tuple[str | None, bytes | None, bool]:
    """Return file and source of a local module by its name, and whether it is a package."""
    key = inner.replace(".", "/")
    for file in (f"{key}.py", f"{key}/__init__.py"):
        if file in recipe.modules:
            return *recipe.modules[file], file != f"{key}.py"
    return None, None, not key or any(file.startswith(f"{key}/") for file in recipe.modules)


class _Renamer(ast.NodeTransformer):
    """Makes absolute imports of a recipe's modules those of their names under the recipe."""

    def __init__(self, recipe: Recipe):
        self._prefix = f"{recipe.module_name}{_LOCAL}."
        self._local = {key.partition("/")[0].removesuffix(".py") for key in recipe.modules}

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        """Rename ``import a.b``, which binds ``a``, and ``import a.b as c``."""
        imports: list[ast.stmt] = []
        for alias in node.names:
            top = alias.name.partition(".")[0]
            names = [alias]
            if top in self._local:
                names = [ast.alias(self._prefix + alias.name, alias.asname or top)]
                if not alias.asname and alias.name != top:
                    # The first loads a.b, the second binds a.
                    names = [ast.alias(self._prefix + name, top) for name in (alias.name, top)]
            imports += [ast.copy_location(ast.Import([name]), node) for name in names]
        return imports

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """Rename ``from a.b import c``."""
        if not node.level and (node.module or "").partition(".")[0] in self._local:
            node.module = self._prefix + node.module
        return node


def _imported_names(source: bytes, path: str, package: str) -> list[str]:
    """Return the names of modules that a source imports, and of what might be modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                try:
                    module = importlib.util.resolve_name("." * node.level + module, package)
                except ImportError:  # running it raises the error
                    continue
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return [name for full in names for name in _with_packages(full)]


def _with_packages(name: str) -> list[str]:
    """Return ``["a", "a.b", "a.b.c"]`` for ``"a.b.c"``."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _find_local(name: str, search: Sequence[str]) -> tuple[str, str, str] | None:
    """Return key, file and package of a local module; None if there is none of that name."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    path, spec = list(search), None
    for full in _with_packages(name):
        spec = importlib.machinery.PathFinder.find_spec(full, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    file = spec.origin if spec is not None else None
    if not file or not file.endswith(".py") or not is_local(file):
        return None
    key, package = name.replace(".", "/"), name.rpartition(".")[0]
    if os.path.basename(file) == "__init__.py":
        key, package = f"{key}/__init__", name
    return f"{key}.py", os.path.abspath(file), package


def is_local(file: str) -> bool:
    """Return whether a file is neither the project's nor an installed module."""
    paths = sysconfig.get_paths()
    installed = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [*site.getsitepackages(), site.getusersitepackages()]
    installed += [str(_ROOT / package) for package in ("flax_resnet", "train", "configs")]
    real = os.path.realpath(file)
    if {"site-packages", "dist-packages"} & set(Path(real).parts):
        return False
    return not any(real.startswith(os.path.join(os.path.realpath(p), "")) for p in installed)


sys.meta_path.append(_Finder())
