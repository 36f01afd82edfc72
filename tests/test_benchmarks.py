"""The measurements in benchmarks/RESULTS.md: named scripts exist, and all pages are linked."""

import re

import pytest

from benchmarks import gpu
from tests.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"
PAGES = [BENCHMARKS / "RESULTS.md", *sorted((BENCHMARKS / "studies").glob("*.md"))]


def test_scripts_named_in_the_results_exist():
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(
            r"\b(?:benchmarks|configs|flax_resnet|train|tests)/[\w/]+\.py", text
        ):
            assert (ROOT / path).exists(), (page.name, path)
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), (page.name, link)


def test_every_study_is_part_of_the_results():
    results, pages = PAGES[0].read_text(), "".join(page.read_text() for page in PAGES)
    for page in PAGES[1:]:
        assert f"(studies/{page.name})" in results, page.name
    helpers = {"hlo.py"}
    for script in (BENCHMARKS / "studies").glob("*.py"):
        assert script.name in helpers or f"benchmarks/studies/{script.name}" in pages, script.name


def test_the_table_of_gpu_measurements_compares_rounds_and_names_the_default():
    """Ratios are of the same round, since the speed of a machine varies between rounds."""
    rates = {"XLA's own operations": (100, 50, 200), "ours": (110, 52, 230), "ours-relu": (102, 51)}
    part = gpu.Part("training step", [], gpu.advise_on_gradients)
    part.results = {n: [{"images_per_second": r} for r in rs] for n, rs in rates.items()}
    part.results["PyTorch"] = [{"failed": "CUDA out of memory"}]
    rows = [line.split(" | ") for line in gpu.table(part).splitlines()[5:]]
    assert [row[0] for row in rows] == [f"| {name}" for name in part.results]
    assert rows[1][1:3] == ["110 (52–230)", "1.100 (1.040–1.150)"]
    assert "keep" in rows[1][4] and "remove" in rows[2][4] and "out of memory" in rows[3][1]


@pytest.mark.parametrize("sizes", [gpu.Sizes(), gpu.SMOKE])
def test_gpu_measurements_have_unique_names_and_existing_scripts(sizes):
    for part in gpu.make_parts(sizes).values():
        names = [case.name for case in part.cases]
        assert len(set(names)) == len(names)
        assert all((BENCHMARKS / case.script).exists() for case in part.cases)
