"""Every command and snippet of the README and the documentation runs, taken from their text.

Shell blocks are run by bash with functions in place of ``python`` and other programs, which record
their arguments; :class:`Calls` then runs each recorded call in this process. Python blocks run
unchanged except for ``SUBSTITUTES``. The files and workdirs that the text names are small ones made
by :func:`examples`.
"""

import ast
import glob
import os
import re
import runpy
import shutil
import subprocess
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import as_a_process, command_main
from tests.train.test_predict_masks import make_run
from train.runtime.entry_point import COMMANDS

ROOT = Path(__file__).parent.parent

PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
DOCS = ["README.md", "CONTRIBUTING.md", *PAGES]

# Commands whose effect another test checks, by their exact text in the documentation.
COVERED = {
    "python -m train.plan --config configs/resnet20_digits.py": "train/plan/test_plan.py",
    "python -m train.evaluate --workdir runs/resnet20_digits": "train/test_evaluate.py",
    "python -m train.predict --workdir runs/resnet20_digits IMAGE_OR_FOLDER --topk 3"
    " --explain explained": "train/test_predict.py",
    "python -m train.predict --workdir runs/resnet20_digits --csv"
    " photos.csv": "train/test_predict.py",
    "python -m train.predict --workdir runs/street DIR --masks predicted --overlays overlays"
    " --json": "train/test_predict_masks.py",
    "python -m train.predict --workdir runs/street photos --masks predicted"
    " --overlays overlays": "train/test_predict_masks.py",
    "python -m train.export --workdir runs/resnet20_digits --format stablehlo"
    " --output digits.stablehlo": "train/export/test_export.py",
    "python -m train.export --workdir runs/finetuned --format torchvision"
    " --output finetuned.safetensors": "train/export/test_export.py",
    "python -m train.export --workdir runs/finetuned --format huggingface"
    " --output exported/model.safetensors": "train/export/test_export.py",
    "python -m train.export --workdir runs/images --format stablehlo"
    " --output exported/images.stablehlo": "train/export/test_export.py",
    "python -m train.prepare --dataset cifar10 --data_dir ~/data": "train/prepare/test_prepare.py",
    "python -m train.prepare --dataset imagenet2012 --data_dir ~/data"
    " --manual_dir ~/downloads --resize 400": "train/prepare/test_prepare.py",
    "python -m train.statistics --config configs/resnet20_digits.py": "train/data/test_datasets.py",
    "python -m train.main --config configs/resnet50_imagenet_a1.py"
    " --config.smoke=True": "test_recipes.py",
    "python -m train.main --config configs/resnet50_imagenet_fast.py"
    " --config.smoke=True": "test_recipes.py",
    "python -m tests.mutate train/data/sampler.py"
    " tests/train/data/test_sampler.py": "test_mutate.py",
    "python -m pytest": "conftest.py",  # this very command
}

# A developer's programs and the virtual environment; .ci/run uses them.
PROGRAMS = ("python3", "source", "ruff", "sphinx-build", "scontrol")

# Training that is run, for two steps of a small model. The command lines of all other training are
# parsed as train.main parses them, recipe and keys, and a run on the digits takes its place.
SMALL = ("--config.smoke=True", "--config.model.stage_sizes=1,1", "--config.model.width=8")
TRAINED = ("runs/images", "runs/finetuned")

# Smaller models and images, which compile in a moment, in Python blocks.
SUBSTITUTES = {
    'create_model("resnet50", num_classes=10, dtype=jnp.bfloat16)': 'create_model("resnet50",'
    " num_classes=10, dtype=jnp.bfloat16, stage_sizes=(1,), width=8)",
    "config.num_epochs = 10": "config.num_epochs = 0.2\nconfig.model.stage_sizes = (1,)",
    "jnp.zeros((4, 224, 224, 3))": "jnp.zeros((4, 32, 32, 3))",
    '"runs/resnet18_folder"': '"resnet18.safetensors"',
    'create_model("resnet18", num_classes=0), "resnet18.safetensors"': "backbone,"
    ' "small18.safetensors"',
    'create_model("resnet18", num_classes=0': 'create_model("resnet18", num_classes=0,'
    " stage_sizes=(1, 1, 1, 1), width=16",
    "(1, 16, 12, 512)": "(1, 16, 12, 128)",
}

RECORD = """
record() {  # in one piece, since commands in the background record at the same time
    local own=calls.$BASHPID
    { printf '%s\\0' "$@"; printf '\\n'; } > "$own"
    cat "$own" >> calls
    rm "$own"
}
srun() { shift; "$@"; }
""" + "".join(
    f'{name}() {{ record {name} "$@"; }}\n' for name in ("python", "pip", "flax-resnet", *PROGRAMS)
)


def blocks(name):
    """Return ``(language, text)`` of every fenced block of a file."""
    text = (ROOT / name).read_text()
    matches = re.findall(r"^( *)```([\w{}-]*)\n(.*?)^\1```$", text, re.M | re.S)
    assert 2 * len(matches) == len(re.findall(r"^ *```", text, re.M)), "a block that is not closed"
    return [(language, textwrap.dedent(inside)) for _, language, inside in matches]


def recorded_calls(script, folder):
    """Return the argument lists of all programs that a shell script calls."""
    record = folder / "calls"
    record.unlink(missing_ok=True)
    process = subprocess.run(
        ["bash", "-c", RECORD + script],
        cwd=folder,
        env=os.environ | {"HOME": "~"},  # as in the text
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (process.returncode, process.stderr) == (0, ""), script
    lines = record.read_text().split("\0\n") if record.exists() else []
    return [line.split("\0") for line in lines if line]


@pytest.fixture(scope="module")
def examples(digits_run, tmp_path_factory):
    """A folder with what the text names: images, weights, a run on the digits, the recipes."""
    from flax_resnet import create_model, init_variables, save_weights

    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for number in range(20):
            path = folder / "DIR" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), random.integers(0, 256, (40, 40, 3), np.uint8))
    for name in ("a.png", "b.jpg", "IMAGE.png"):
        cv2.imwrite(str(folder / name), random.integers(0, 256, (40, 50, 3), np.uint8))
    os.rename(folder / "IMAGE.png", folder / "IMAGE")
    shutil.copy(folder / "b.jpg", folder / "a.jpg")
    make_run(str(folder / "runs" / "street"), (64, 48))
    shutil.copytree(digits_run, folder / "runs" / "resnet20_digits")
    os.symlink(ROOT / "configs", folder / "configs")

    def weights(name, file, **fields):
        model = create_model(name, num_classes=1000, **fields)
        variables = init_variables(model, 0, (32, 32, 3))
        save_weights(model, variables, folder / "new.safetensors", layout="torchvision")
        os.rename(folder / "new.safetensors", folder / file)

    weights("resnet18", "resnet18.safetensors")
    weights("resnet18", "small18.safetensors", stage_sizes=(1, 1, 1, 1), width=16)
    weights("resnet50", "resnet50-11ad3fa6.pth", stage_sizes=(1, 1), width=8)
    save = folder / "resnet20.safetensors"
    model = create_model("resnet20")
    save_weights(model, init_variables(model, 0, (32, 32, 3)), save, layout="torchvision")
    tensors = load_file(save)
    parts = {f"{part}.{name}": t for part in ("model", "ema") for name, t in tensors.items()}
    save_file(parts, folder / "checkpoint.pth.tar")
    return folder


@pytest.fixture(scope="module")
def finished():
    """The commands that have already run: several pages contain the same ones."""
    return set()


class Calls:
    """Runs the recorded calls in ``folder``."""

    def __init__(self, folder, digits_run, monkeypatch, finished):
        self.folder, self.digits_run, self.monkeypatch = folder, digits_run, monkeypatch
        self.finished = finished

    def run(self, call):
        if call[0] == "flax-resnet":
            call = self.as_module(call)
        text = " ".join(call)
        if text in COVERED:
            assert (ROOT / "tests" / COVERED[text]).exists()
        elif call[0] == "pip":
            self.pip(*call[1:])
        elif call[0] not in PROGRAMS and text not in self.finished:
            assert call[:2] == ["python", "-m"], text
            module, arguments = call[2], call[3:]
            arguments = [one for given in arguments for one in sorted(glob.glob(given)) or [given]]
            getattr(self, module.replace(".", "_"))(arguments)
            self.finished.add(text)

    def as_module(self, call):
        """Return a call of the installed command as a call of the module that it runs."""
        module, _ = COMMANDS[call[1]]
        return ["python", "-m", module.removesuffix(".__main__"), *call[2:]]

    def command(self, module, arguments):
        """Run a command's ``main`` as if it had been typed."""
        main = command_main(module)
        self.monkeypatch.setattr("sys.argv", [module, *arguments])
        assert main() in (0, None), (module, arguments)

    def stand_in(self, workdir, seed=0):
        """Put a run on the digits where a workdir does not exist."""
        if not os.path.isabs(workdir) and not os.path.exists(workdir):
            shutil.copytree(self.digits_run, workdir)
            path = Path(workdir, "config.json")
            path.write_text(path.read_text().replace('"seed": 0', f'"seed": {seed}'))

    def pip(self, verb, *arguments):
        """Check that the extras exist; .ci/run installs them, in a new environment."""
        assert verb == "install"
        extras = re.findall(r"[\w]+(?=[\w,]*\])", " ".join(arguments))
        for extra in extras:
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M)
        assert extras or arguments[-1] == ".", arguments

    def train_main(self, arguments):
        from train import main

        _, config, workdir = main.parse(arguments)
        if workdir in TRAINED:
            self.command("train.main", [*arguments, *SMALL])
        else:
            self.stand_in(workdir, config.seed)

    def train_plan(self, arguments):
        from train import main

        main.parse(arguments)  # tests/train/plan checks what it does

    def train_inspect(self, arguments):
        self.command("train.inspect", arguments)

    def train_sweep(self, arguments):
        from train.sweep.__main__ import parse

        parse(arguments)  # tests/train/sweep checks what it does

    def train_evaluate(self, arguments):
        self.command("train.evaluate", arguments)

    def train_predict(self, arguments):
        self.command("train.predict", arguments)

    def train_compare(self, arguments):
        runs = [one for one in arguments if one.startswith("runs/")]
        assert len(runs) > 1
        for run in runs:
            self.stand_in(run)
        self.command("train.compare", arguments)

    def train_export(self, arguments):
        with as_a_process():
            self.command("train.export", arguments)

    def flax_resnet_summary(self, arguments):
        self.command("flax_resnet.summary", arguments)

    def flax_resnet_weights(self, arguments):
        # The model of this run is narrower than any named model.
        file = {"runs/resnet20_digits": "resnet20.safetensors"}
        arguments = [file.get(argument, argument) for argument in arguments]
        self.command("flax_resnet.weights", arguments)


@pytest.mark.parametrize("name", [name for name in DOCS if blocks(name)])
def test_commands_and_snippets_run(name, examples, digits_run, finished, monkeypatch):
    monkeypatch.chdir(examples)
    # Undo what commands set for their process.
    monkeypatch.setattr("os.environ", os.environ.copy())
    calls, namespace = Calls(examples, digits_run, monkeypatch, finished), {}
    for language, text in blocks(name):
        if language == "python":
            run_python(text, namespace, examples)
        elif language in ("", "bash"):
            recorded = recorded_calls(text, examples)
            assert recorded, f"nothing is called by\n{text}"
            for call in recorded:
                calls.run(call)
        else:
            assert language in ("text", "diff", "{toctree}", "{eval-rst}"), language


def run_python(text, namespace, folder):
    """Run a block after the ones before it; a recipe is loaded as one."""
    from train.config.loading import load_config

    for old, new in SUBSTITUTES.items():
        text = text.replace(old, new)
    if "import register_" in text or "    register_" in text or "recipe" in namespace:
        namespace["recipe"] = namespace.get("recipe", "") + text  # in pieces
    if "def get_config" in text:
        recipe = folder / ("my_recipe.py" if "recipe" in namespace else "recipe.py")
        recipe.write_text(namespace.pop("recipe", text))
        load_config(str(recipe))
    elif "recipe" not in namespace:
        exec(compile(ast.parse(text), "<docs>", "exec"), namespace)


def test_python_blocks_of_segmentation_are_executed(examples, monkeypatch):
    """None is taken for a piece of a recipe, which would only be collected."""
    monkeypatch.chdir(examples)
    namespace = {}
    for language, text in blocks("docs/segmentation.md"):
        if language == "python" and "street" not in text:
            run_python(text, namespace, examples)
    config = namespace["config"]
    assert config.task == "segmentation" and config.augment.crop_size == (512, 1024)
    assert (namespace["to_classes"](np.full((1, 2, 3), (0, 0, 142))) == 2).all()


def test_the_reference_has_what_pages_import():
    """The public interface is what the API reference lists."""
    reference = whole_text("docs/api.md")
    imports = re.findall(r"^from flax_resnet[\w.]* import (.*)$", whole_text(), re.M)
    names = {name for line in imports for name in line.split(", ")}
    assert "PixelClassifier" in names
    assert not {name for name in names if not re.search(rf"\b{name}\b", reference)}


@pytest.mark.parametrize("name", DOCS)
def test_diffs_apply_to_the_code(name):
    for text in (text for language, text in blocks(name) if language == "diff"):
        header, *lines = text.splitlines()
        assert header.startswith("+++ ")
        before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        assert before in (ROOT / header[4:]).read_text(), text


def whole_text(*names):
    return "\n".join((ROOT / name).read_text() for name in names or DOCS)


def test_the_tables_of_this_test_are_up_to_date():
    text = re.sub(r" *\\\n\s*", " ", whole_text())
    for known in (*COVERED, *SUBSTITUTES):
        assert known in text, f"{known!r} is no longer in the documentation"


def test_modules_recipes_files_and_keys_in_the_text_exist():
    from train.config.loading import KEYS

    text = whole_text()
    for module in re.findall(r"python -m ((?:train|flax_resnet)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    code = "|".join(("train", "flax_resnet", "configs", "tests", "benchmarks"))
    for path in re.findall(rf"(?<![\w/])(?:{code})/[\w/.]*\w(?![\w$])", text):
        placeholder = "NAME" in path or path in ("train/loss", "train/top1")  # names of metrics
        assert placeholder or (ROOT / path).exists(), path
    for key in re.findall(r"--config\.([a-z_.\d]+[a-z\d])", text):
        assert key in KEYS, key
    groups = "|".join(sorted({key.split(".")[0] for key in KEYS if "." in key}))
    for key in re.findall(rf"`((?:{groups})\.[a-z_\d]+)(?:=[^`]*)?`", text):
        assert key in (*KEYS, "model.init", "model.fit", "schedule.svg"), key


def heading_anchors(path):
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_to_files_and_headings(name):
    for link, anchor in re.findall(r"\]\(([^)#: ]*)(?:#([^)]*))?\)", (ROOT / name).read_text()):
        target = (ROOT / name).parent / link if link else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target), f"{link}#{anchor}"


def test_the_readme_is_short_and_links_all_pages():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 170
    for page in PAGES:
        assert re.search(rf"\({page}[#)]", readme), f"the README does not link {page}"


def test_the_key_reference_is_complete():
    from train.config.keys import KEYS

    conf = runpy.run_path(str(ROOT / "docs/conf.py"))
    tables = conf["config_tables"]()
    assert re.findall(r"^\| `([\w.]+)`", tables, re.M) == list(KEYS)
    assert "| `label_smoothing` | `0.0` | " in tables and "≥ 0 and < 1 |" in tables
    app = None
    source = [(ROOT / "docs/configuration.md").read_text()]
    conf["insert_config_tables"](app, "configuration", source)
    assert tables in source[0]


def test_the_changelog_lists_every_renamed_key():
    from train.config.keys import KEYS
    from train.config.other_names import OTHER_NAMES

    text = whole_text("CHANGELOG.md")
    groups = {"data", *(key.split(".")[0] for key in KEYS if "." in key)}
    for old, new in OTHER_NAMES.items():
        if old.split(".")[0] in groups and "." in old and not old.startswith("optimizer.beta1"):
            group, _, leaf = old.rpartition(".")
            assert f"`{group}.{leaf}`" in text or f"`{leaf}`" in text, old
            assert f"`{new}`" in text or f"`{new.rpartition('.')[2]}`" in text, new
