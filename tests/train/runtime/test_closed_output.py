"""Every command with ``| head``: its own status, no traceback, and all files are written."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from flax_resnet import program
from tests.conftest import DIGITS, ROOT
from tests.flax_resnet.weights.weight_files import write_safetensors

COMMANDS = (
    "train.main",
    "train.evaluate",
    "train.predict",
    "train.plan",
    "train.inspect",
    "train.compare",
    "train.sweep",
    "train.export",
    "train.prepare",
    "train.statistics",
    "flax_resnet.weights",
    "flax_resnet.summary",
)
SMALL = ["--config.model.stage_sizes=1", "--config.model.width=8", "--config.dataset.image_size=8"]


@pytest.fixture(scope="module")
def ends(commands, data_dir, digits_run, tmp_path_factory):
    """The folder of what each command writes, and how each ends: ``{module: {…}}``."""
    folder = tmp_path_factory.mktemp("closed")
    picture = folder / "a.png"
    cv2.imwrite(str(picture), np.zeros((9, 9, 3), np.uint8))
    write_safetensors(folder / "w.safetensors", {"conv1.weight": ("F32", (1,), bytes(4))})
    data = f"--config.dataset.data_dir={data_dir}"
    recipe = ["--config", DIGITS, data]
    run = ["--workdir", digits_run]
    arguments = {
        "train.main": [*recipe, *SMALL, "--workdir", folder / "run", "--config.num_steps=3"],
        "train.evaluate": [*run, "--output", folder / "evaluation"],
        "train.predict": [*run, *[picture] * 3, "--features", folder / "f.npz", "--csv"],
        "train.plan": [*recipe, *SMALL, "--output", folder / "plan", "--config.num_steps=4"],
        "train.inspect": [*run, "--output", folder / "inspection"],
        "train.compare": [digits_run, "--output", folder / "compare.html"],
        "train.sweep": [
            *(*recipe, *SMALL, "--workdir", folder / "sweep", "--config.num_steps=2"),
            *("--grid", "schedule.learning_rate=0.1,0.2"),
        ],
        "train.export": [*run, "--format", "stablehlo", "--output", folder / "e.stablehlo"],
        "train.prepare": ["--help"],
        "train.statistics": recipe,
        "flax_resnet.weights": ["inspect", "--tensors", folder / "w.safetensors"],
        "flax_resnet.summary": ["resnet18"],
    }
    assert tuple(arguments) == COMMANDS
    texts = [json.dumps([module, *map(str, each)]) for module, each in arguments.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.closed_output", *texts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(COMMANDS), done.stderr
    return folder, dict(zip(COMMANDS, rows, strict=True))


@pytest.mark.parametrize("module", COMMANDS)
def test_a_closed_output_changes_neither_status_nor_errors(ends, module):
    end = ends[1][module]
    assert end["status"] == 0, end["errors"]
    assert "Traceback" not in end["errors"] and "BrokenPipe" not in end["errors"]
    lost = [line for line in end["errors"].splitlines() if "output failed" in line]
    assert len(lost) == {"train.main": 1, "train.sweep": 2}.get(module, 0)


def test_all_files_are_written(ends):
    folder = ends[0]
    for name in (
        *("run/report.html", "run/samples.png", "run/metrics.jsonl", "run/checkpoints/3"),
        *("evaluation/evaluation.json", "evaluation/report.html", "evaluation/confusion.svg"),
        *("plan/schedule.svg", "plan/samples.png", "f.npz", "compare.html", "e.stablehlo"),
        *("inspection/findings.csv", "inspection/inspection.html", "sweep/compare.html"),
    ):
        assert (folder / name).exists(), name


@pytest.mark.parametrize("command", ["-m flax_resnet.weights --help", "-c {entry} --help"])
def test_head_of_a_shell_shows_the_first_line(command):
    """Also at the end of the interpreter, which writes what is left in its buffers."""
    entry = "'from train.runtime.entry_point import main; main()'"
    text = f"{sys.executable} {command.format(entry=entry)} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: ") and done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_lost_reader_is_known_and_both_streams_go_on(tmp_path):
    code = (
        "import sys; from flax_resnet import program\n"
        "program.prepare_streams()\n"
        "assert not program.reader_is_gone(sys.stdout)\n"
        "print('× lost', flush=True); print('lost too', file=sys.stderr, flush=True)\n"
        "assert program.reader_is_gone(sys.stdout) and program.reader_is_gone(sys.stderr)\n"
        "print('x' * 10**6)\n"
        "open(sys.argv[1], 'w').write('done')\n"
        "sys.exit(3)\n"
    )
    text = f'({sys.executable} $0 -c "$1" "$2"; echo $? > "$2.status") 2>&1 | true'
    for flag in ("-B", "-u"):  # -u: without buffers
        path = tmp_path / flag
        subprocess.run(["bash", "-c", text, flag, code, path], cwd=ROOT, check=True)
        # `true` may end after the first line was written; the long one comes in any case later.
        assert (tmp_path / f"{flag}.status").read_text() in ("3\n", "1\n")
    assert program.reader_is_gone(sys.stdout) is False
