"""The measurements in benchmarks/RESULTS.md: named scripts exist, and all pages are linked."""

import re

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
