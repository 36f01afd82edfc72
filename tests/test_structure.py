"""The structure of the code: the order of imports, and where external dependencies are used."""

import ast

import pytest

from tests.conftest import ROOT

# From the bottom up; packages in one line do not import one another.
LAYERS = (
    ("flax_resnet",),
    ("runtime",),
    ("data",),
    ("config",),
    ("tasks", "workdir", "optim"),
    ("engine",),
    ("reporting",),
    ("loop",),
    ("fitting",),
    ("export",),  # a command; predict runs exported networks
    (
        "main",
        "evaluate",
        "predict",
        "statistics",
        "plan",
        "inspect",
        "compare",
        "prepare",
    ),
    ("sweep",),
)
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}

# The modules or packages in which an external dependency may be imported.
IMPORTERS = {
    "orbax": {"train.workdir.checkpoints", "flax_resnet.weights.checkpoints"},
    "tensorflow_datasets": {
        "train.data.sources.tfds_source",
        "train.data.sources.tfds_masks",
        "train.data.sources.digits",
        "train.prepare",
    },
    "array_record": {"train.data.sources.tfds_source", "train.prepare"},
    "datasets": {"train.data.sources.huggingface"},
    "pyarrow": {"train.data.sources.table_file"},
    "onnx": {"train.export.onnx"},
    "onnxruntime": {"train.export.onnx"},
    "llvmlite": {"flax_resnet.ops.onednn"},
    "optuna": {"train.sweep.search"},
    "grain": {"train.data.streaming"},
    "cv2": {"flax_resnet.decoding"},
    "simplejpeg": {"flax_resnet.decoding"},
    "PIL": {
        *("flax_resnet.decoding", "flax_resnet.images", "flax_resnet.preprocessing"),
        *("train.reporting.plots", "train.reporting.fonts"),
    },
    "tensorboardX": {"train.reporting.loggers.tensorboard"},
    "mlflow": {"train.reporting.loggers.mlflow"},
    "wandb": {"train.reporting.loggers.wandb"},
    "jax.profiler": {"train.engine.profiling"},
    "ml_collections": {"train.runtime.config_dict"},
    "safetensors": {"flax_resnet.weights.formats.safetensors_files"},
    "jax.distributed": {"train.runtime.distributed"},
}


def modules():
    """Return ``{module: syntax tree}`` of the two packages."""
    paths = [
        path for package in ("flax_resnet", "train") for path in (ROOT / package).rglob("*.py")
    ]
    return {module_name(path): ast.parse(path.read_text()) for path in paths}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = modules()


def nodes(tree):
    """Yield all nodes except those of ``if TYPE_CHECKING:``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from nodes(child)


def imported(tree):
    """Yield all names that a module imports, and all attributes of ``jax`` that it uses."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names
            if not MODULES.keys() >= set(names):  # not only submodules of a package
                yield node.module
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}" if node.value.id == "jax" else ""


def layer_package(module):
    """Return the package in ``LAYERS`` that a module belongs to; None for ``train`` itself."""
    package, *parts = module.split(".")
    if package == "flax_resnet":
        return package
    return "optim" if parts[:2] == ["engine", "optim"] else parts[0] if parts else None


def dependencies(module):
    """Return the modules of the two packages that a module imports."""
    return {name for name in imported(MODULES[module]) if name in MODULES and name != module}


def test_imports_go_only_downward():
    upward = [
        f"{module} imports {other}"
        for module in MODULES
        for other in dependencies(module)
        if layer_package(module)
        and layer_package(other)
        and layer_package(module) != layer_package(other)
        and LAYER[layer_package(module)] <= LAYER[layer_package(other)]
    ]
    assert not upward


def test_imports_have_no_cycles():
    graph = {module: dependencies(module) for module in MODULES}
    while graph:  # remove modules without dependencies until none is left
        leaves = [module for module, others in graph.items() if not others & graph.keys()]
        assert leaves, f"circular imports among {', '.join(sorted(graph))}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize("dependency", IMPORTERS)
def test_dependencies_are_imported_only_where_allowed(dependency):
    allowed = IMPORTERS[dependency]
    users = {
        module
        for module, tree in MODULES.items()
        if any(name == dependency or name.startswith(f"{dependency}.") for name in imported(tree))
    }
    assert users, f"nothing imports {dependency} any more"
    others = {m for m in users if not any(f"{m}.".startswith(f"{name}.") for name in allowed)}
    assert not others


def test_modules_and_packages_stay_small():
    lengths = {
        module: len((ROOT / path).read_text().splitlines())
        for module in MODULES
        for path in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py")
        if (ROOT / path).exists()
    }
    assert not {module: length for module, length in lengths.items() if length > 400}
    entries = {path.name for path in (ROOT / "train").iterdir()} - {"__init__.py", "__pycache__"}
    assert len(entries) <= 19, entries


def test_class_names_are_unique():
    names = {}
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(module)
    assert not {name: where for name, where in names.items() if len(where) > 1}


def test_tests_mirror_the_packages():
    packages = {path.name for path in (ROOT / "train").iterdir() if path.is_dir()}
    folders = {path.name for path in (ROOT / "tests/train").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} <= packages
