"""The table of a network's stages and its command."""

import os
import subprocess
import sys

import pytest

from flax_resnet import create_model, summarize
from flax_resnet.summary import main


# arXiv:1512.03385, table 1: shortcuts without parameters up to 34 layers, the stride in the 1×1;
# torchvision's documentation.
@pytest.mark.parametrize(
    ("name", "fields", "published"),
    [
        ("resnet18", {"shortcut": "A"}, "1.8"),
        ("resnet34", {"shortcut": "A"}, "3.6"),
        ("resnet101_v1", {}, "7.6"),
        ("resnet152_v1", {}, "11.3"),
        ("resnet50", {}, "4.09"),
    ],
)
def test_multiply_adds_match_publications(name, fields, published):
    billions = summarize(create_model(name, **fields), 224).multiply_adds / 1e9
    digits = len(published.partition(".")[2])
    assert f"{billions:.{digits}f}" == published


def test_multiply_adds_of_50_layers_are_truncated_in_the_paper():
    """The paper has 3.8 billion; PyTorch's counter, too, gives 3.86 (test_huggingface)."""
    assert summarize(create_model("resnet50_v1"), 224).multiply_adds == 3_857_973_248


def test_rows_are_the_stages_of_the_paper():
    summary = summarize(create_model("resnet101"), 224)
    assert [(row.stage, row.output, row.blocks) for row in summary.rows] == [
        ("stem", (56, 56, 64), 0),
        ("stage1", (56, 56, 256), 3),
        ("stage2", (28, 28, 512), 4),
        ("stage3", (14, 14, 1024), 23),
        ("stage4", (7, 7, 2048), 3),
        ("head", (1000,), 0),
    ]
    assert summary.rows[0].parameters == 7 * 7 * 3 * 64 + 2 * 64
    assert summary.rows[0].multiply_adds == 112 * 112 * 64 * 7 * 7 * 3
    assert summary.rows[-1].parameters == 2048 * 1000 + 1000
    assert summary.rows[-1].multiply_adds == 2048 * 1000
    assert summary.rows[2].layers == "[1×1, 128; 3×3, 128; 1×1, 512] × 4"
    assert summary.parameters == 44_549_160


@pytest.mark.parametrize(
    ("name", "stage", "layers"),
    [
        ("resnext50_32x4d", "stage1", "[1×1, 128; 3×3, 128, 32 groups; 1×1, 256] × 3"),
        ("resnet50d", "stem", "3×3, 32; 3×3, 32; 3×3, 64; 3×3 max-pool"),
        ("resnet26t", "stem", "3×3, 24; 3×3, 32; 3×3, 64; 3×3 max-pool"),
        ("resnetblur18", "stem", "7×7, 64; 3×3 max-pool with blur"),
        ("resnetaa50", "stem", "7×7, 64; 2×2 average pool"),
        ("ecaresnetlight", "stage1", "[1×1, 64; 3×3, 64; 1×1, 256] × 1"),
        ("wrn16_8", "stage3", "[3×3, 512; 3×3, 512] × 2"),
    ],
)
def test_layers_in_words(name, stage, layers):
    rows = {row.stage: row for row in summarize(create_model(name), 64).rows}
    assert rows[stage].layers == layers


def test_counts_match_manual_calculation():
    model = create_model("resnet20", stage_sizes=(1,), num_classes=0, se_ratio=0.5)
    stem, stage, head = summarize(model, (4, 6), channels=1).rows
    assert (stem.output, stem.parameters, stem.multiply_adds) == ((4, 6, 16), 9 * 16 + 32, 9 * 384)
    # Two 3×3 convolutions with norm, and squeeze-and-excitation through 8 units.
    assert stage.parameters == 2 * (9 * 16 * 16 + 32) + (16 * 8 + 8) + (8 * 16 + 16)
    assert stage.multiply_adds == 2 * 9 * 16 * 16 * 24 + 2 * 16 * 8
    assert (head.output, head.parameters, head.multiply_adds) == ((16,), 0, 0)


def test_command_prints_the_table(capsys):
    main(["resnet18", "--image-size", "64", "--num-classes", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "stage layers output blocks parameters multiply-adds".split()
    assert lines[1].startswith("stem    7×7, 64; 3×3 max-pool")
    assert lines[-1].split()[:3] == ["total", "8", "11,181,642"]


@pytest.mark.parametrize("arguments", [["resnet5"], ["resnet50", "--image-size", "0"]])
def test_command_rejects_invalid_arguments_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; see python -m flax_resnet.summary --help")


def test_command_runs_as_a_module_without_warnings():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "flax_resnet.summary"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(
        [*command, "resnet18", "--image-size", "32"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "11,689,512" in result.stdout.splitlines()[-1]
