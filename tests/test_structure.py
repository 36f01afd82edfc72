"""The structure of the code: imports go down only, and each outside system has one door."""

import ast

import pytest

from tests.conftest import ROOT

# From the bottom up; rooms in one line are beside each other and do not import one another.
FLOORS = (
    ("flax_resnet",),
    ("runtime",),
    ("data",),
    ("config",),
    ("tasks", "workdir", "optim"),
    ("engine",),
    ("reporting",),
    ("loop",),
    ("main", "evaluate", "predict", "statistics", "plan", "compare", "export", "prepare"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The modules or packages that import an outside system.
DOORS = {
    "orbax": {"train.workdir.checkpoints", "flax_resnet.weights.checkpoints"},
    "tensorflow_datasets": {"train.data.tfds_source", "train.data.digits", "train.prepare"},
    "array_record": {"train.data.tfds_source", "train.prepare"},
    "grain": {"train.data.streaming"},
    "cv2": {"flax_resnet.decoding", "train.data.images"},
    "PIL": {"flax_resnet.decoding", "flax_resnet.preprocessing", "train.data.images"},
    "tensorboardX": {"train.workdir.metrics_log"},
    "matplotlib": {"train.reporting.plots"},
    "ml_collections": {"train.runtime.config_dict"},
    "safetensors": {"flax_resnet.weights.safetensors_files"},
    "jax.distributed": {"train.runtime.distributed"},
}


def modules():
    """``{module: syntax tree}`` of the two packages."""
    paths = [
        path for package in ("flax_resnet", "train") for path in (ROOT / package).rglob("*.py")
    ]
    return {module_name(path): ast.parse(path.read_text()) for path in paths}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = modules()


def nodes(tree):
    """All nodes but those of ``if TYPE_CHECKING:``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from nodes(child)


def imported(tree):
    """Everything that a module imports anywhere, as dotted names; also what it uses of JAX."""
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


def room(module):
    """The room of a module: ``flax_resnet``, or the part of ``train`` that it lies in."""
    package, *parts = module.split(".")
    if package == "flax_resnet":
        return package
    return "optim" if parts[:2] == ["engine", "optim"] else parts[0] if parts else None


def dependencies(module):
    """The modules of the two packages that a module imports."""
    return {name for name in imported(MODULES[module]) if name in MODULES and name != module}


def test_imports_go_down_only():
    upward = [
        f"{module} imports {other}"
        for module in MODULES
        for other in dependencies(module)
        if room(module)
        and room(other)
        and room(module) != room(other)
        and FLOOR[room(module)] <= FLOOR[room(other)]
    ]
    assert not upward


def test_imports_have_no_circle():
    graph = {module: dependencies(module) for module in MODULES}
    while graph:  # remove modules without dependencies until none is left
        leaves = [module for module, others in graph.items() if not others & graph.keys()]
        assert leaves, f"circular imports among {', '.join(sorted(graph))}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize("system", DOORS)
def test_each_outside_system_has_one_door(system):
    doors = DOORS[system]
    users = {
        module
        for module, tree in MODULES.items()
        if any(name == system or name.startswith(f"{system}.") for name in imported(tree))
    }
    assert users, f"nothing imports {system} any more"
    outside = {m for m in users if not any(m == door or m.startswith(f"{door}.") for door in doors)}
    assert not outside


def test_modules_and_rooms_stay_small():
    lengths = {
        module: len((ROOT / path).read_text().splitlines())
        for module in MODULES
        for path in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py")
        if (ROOT / path).exists()
    }
    assert not {module: length for module, length in lengths.items() if length > 400}
    entries = {path.name for path in (ROOT / "train").iterdir()} - {"__init__.py", "__pycache__"}
    assert len(entries) <= 16, entries


def test_one_class_has_a_name():
    names = {}
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(module)
    assert not {name: where for name, where in names.items() if len(where) > 1}


def test_tests_mirror_the_packages():
    rooms = {path.name for path in (ROOT / "train").iterdir() if path.is_dir()}
    folders = {path.name for path in (ROOT / "tests/train").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} <= rooms
