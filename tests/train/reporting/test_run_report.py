"""report.html and compare.html, looked at in a real browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from train import evaluate
from train.compare import comparison
from train.compare.__main__ import main as compare_main
from train.reporting import curves, html_page, run_report, svg
from train.workdir import run_files
from train.workdir.metrics_log import read_rows

EVIL = "<img src=x onerror=\"console.error('run')\">&amp;"


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    """The digits' run, evaluated by the command, with class names that mean harm."""
    path = str(tmp_path_factory.mktemp("report") / "a <b>run")
    shutil.copytree(digits_run, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.evaluate", "--workdir", path])
        assert evaluate.main() == 0
    parts = json.dumps(run_report.read_parts(path))
    parts = json.loads(parts.replace('"is 3\\n', json.dumps(f"is {EVIL} 3\n")[:-1]))
    for evaluated in parts["evaluations"].values():
        evaluated["classes"][3]["name"] = EVIL + "3"
    run_report.write_parts(path, parts)
    run_report.write(path)
    return path


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    """The run, another seed, and one that is unfinished; and the page about them."""
    folder = tmp_path_factory.mktemp("compared")
    other, unfinished = str(folder / "other"), str(folder / "unfinished")
    for path in (other, unfinished):
        shutil.copytree(run, path)
    change(other, "config.json", '"seed": 0', '"seed": 1')
    change(other, "metrics.jsonl", r'"eval/top1": [\d.]+', '"eval/top1": 0.5')
    change(unfinished, "config.json", '"batch_size": 64', '"batch_size": 32')
    change(unfinished, "metrics.jsonl", r"\{[^{]*\n$", "")
    paths = [run, other, unfinished]
    page = str(folder / "pages" / "compare.html")
    comparison.write(page, [comparison.read(path) for path in paths])
    return paths, page


def change(path, name, old, new):
    text = open(f"{path}/{name}").read()
    assert re.search(old, text)
    with open(f"{path}/{name}", "w") as file:
        file.write(re.sub(old, new, text))


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: the machine's own, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


# WCAG 2's contrast of each element's own text with what lies behind it.
CONTRAST = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const layers = [];
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(element).backgroundColor);
      layers.push([r, g, b, a]);
    }
    return layers.reverse().reduce(
      (below, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a)),
      [255, 255, 255]);
  };
  let worst = [100, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const colour = numbers(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 80)];
  }
  return worst;
}"""


@pytest.mark.parametrize("which", ("report", "compare"))
def test_the_pages_in_a_browser(run, compared, browser, which, tmp_path):
    """No message, request or overflow; readable in both schemes, on a phone and on a desk."""
    path = f"{run}/report.html" if which == "report" else compared[1]
    (tmp_path / "page.html").write_text(open(path).read())
    page = browser.new_page()
    told, asked = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{tmp_path}/page.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = page.inner_text("body")
    assert "<b>run" in text and (EVIL in text) == (which == "report")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    for width in (360, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        charts = page.evaluate(
            "[...document.querySelectorAll('svg')].map(svg => Math.max(...[...svg"
            ".querySelectorAll('.line')].map(line => line.getBoundingClientRect().width)))"
        )
        assert len(charts) >= 5 and min(charts) > 100  # lines are drawn
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", back))) < 380) == (scheme == "dark")
            ratio, where = page.evaluate(CONTRAST)
            assert ratio >= 4.5, (scheme, where)
    assert told == []
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    page.close()


class Strict(HTMLParser):
    """Collects texts, and sees that every element is closed in its place."""

    VOID = ("meta", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.sources = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "srcset", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_is_one_whole_file_and_tells_the_run(run):
    text = open(f"{run}/report.html", encoding="utf-8").read()
    page = Strict(text)
    assert "script" not in page.tags and "url(" not in text and "@import" not in text
    assert all(source.startswith("data:") for source in page.sources)
    told = " ".join(page.texts)
    last = [row for row in read_rows(run) if "eval/top1" in row][-1]
    for words in (
        *(f"{last['eval/top1']:.2%}", "finished", "1,437 images in train", "model.stage_sizes"),
        *("Grad-CAM", "confusion".title(), "Sessions", "python -m train.main", EVIL + "3"),
        *("loss (nats)", "top-1 accuracy", "learning rate", "images per second", "waiting"),
    ):
        assert words in told, words
    assert page.tags.count("svg") == 6
    [evaluated] = run_report.read_parts(run)["evaluations"].values()
    assert len(evaluated["explained"]) == 8 and len(evaluated["mistakes"]) == 24
    assert all(re.search(r"\nrecord \d+$", one["caption"]) for one in evaluated["mistakes"])
    # What was set comes before what was not.
    assert told.index("model.stage_sizes") < told.index("keys at their defaults")
    assert told.index("keys at their defaults") < told.index("optimizer.b2")


def test_training_writes_the_report_and_evaluation_elsewhere_leaves_it(
    digits_run, tmp_path, monkeypatch
):
    parts = run_report.read_parts(digits_run)
    assert len(parts["samples"]["cells"]) == run_report.SAMPLES
    [(name, evaluated)] = parts["evaluations"].items()
    # So short a run is not worth Grad-CAM's compilation.
    assert name == "test_ema" and evaluated["step"] == 44 and "explained" not in evaluated
    [row] = [row for row in read_rows(digits_run) if row["step"] == 44 and "eval/top1" in row]
    assert evaluated["top1"] == row["eval/top1"]
    assert np.trace(evaluated["confusion"]) == round(360 * row["eval/top1"])
    before = open(f"{digits_run}/report.html").read()
    given = ["train.evaluate", "--workdir", digits_run, "--output", str(tmp_path), "--weights=raw"]
    monkeypatch.setattr("sys.argv", given)
    assert evaluate.main() == 0
    assert open(f"{digits_run}/report.html").read() == before
    assert "Evaluation: test_raw" in (tmp_path / "report.html").read_text()


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path):
    warned = []
    live = run_report.LiveReport(str(tmp_path), warned.append)
    live.draw_samples(lambda: (np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"]))
    assert len(warned) == 1 and "cannot draw report.html: RunError" in warned[0]


def test_of_equally_good_steps_it_names_the_one_that_is_taken(tmp_path):
    run_files.create(str(tmp_path), run_files.loading.default_config())
    top1s = {20: 0.25, 40: 0.5, 60: 0.5, 80: 0.5, 100: 0.25}
    rows = [json.dumps({"step": step, "eval/top1": top1}) for step, top1 in top1s.items()]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    for step in (40, 60, 100):  # no other has a checkpoint
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert "<b>50.00%</b><span>at step 60</span>" in run_report.page(str(tmp_path), {})


def test_many_classes_become_a_picture(digits_run):
    part = next(iter(run_report.read_parts(digits_run)["evaluations"].values()))
    del part["confusion"]
    part["heat_map"] = html_page.heat_map(np.eye(300))
    part["classes"] = part["classes"] * 30
    text = run_report.page(digits_run, {"evaluations": {"test": part}})
    assert "275 better classes" in text and text.count('alt="confusion matrix"') == 1
    Strict(text)


def test_compare_tells_runs_that_are_missing_or_unfinished(compared, monkeypatch, capsys, tmp_path):
    paths, _ = compared
    output = str(tmp_path / "compare.html")
    given = ["train.compare", *paths, str(tmp_path / "none"), "--output", output]
    monkeypatch.setattr("sys.argv", given)
    assert compare_main() == 1
    told = capsys.readouterr()
    assert f"error: '{tmp_path}/none' holds no run" in told.err
    assert "unfinished' has not finished: step" in told.err
    top1 = [row for row in read_rows(paths[0]) if "eval/top1" in row][-1]["eval/top1"]
    mean, deviation = np.mean([top1, 0.5]), np.std([top1, 0.5], ddof=1)
    assert f"{mean:.2%} ± {deviation:.2%}" in told.out
    lines = told.out.splitlines()
    assert [line.split()[-3:] for line in lines if line.startswith("batch_size")] == [
        ["64", "64", "32"]
    ]
    text = open(output).read()
    assert f"{mean:.2%} ± {deviation:.2%}" in text and "has not finished" in text
    Strict(text)


def test_what_cannot_be_compared(tmp_path, monkeypatch, capsys):
    from train.runtime.errors import RunError, UsageError

    monkeypatch.setattr("sys.argv", ["train.compare", str(tmp_path)])
    with pytest.raises(RunError, match="none of these"):
        compare_main()
    monkeypatch.setattr("sys.argv", ["train.compare", str(tmp_path), "--output", "page.pdf"])
    with pytest.raises(UsageError, match=r"\.html"):
        compare_main()
    config = run_files.loading.default_config()
    run_files.create(str(tmp_path), config)
    with pytest.raises(RunError, match="has told nothing yet"):
        comparison.read(str(tmp_path))


def test_what_is_there_twice_is_no_other_seed(compared, tmp_path, monkeypatch, capsys):
    (run, other, _), _ = compared
    (tmp_path / "link").symlink_to(run)
    shutil.copytree(run, tmp_path / "copy")
    output = str(tmp_path / "compare.html")
    given = ["train.compare", run, tmp_path / "link", tmp_path / "copy", other, "--output", output]
    monkeypatch.setattr("sys.argv", list(map(str, given)))
    assert compare_main() == 0
    told = capsys.readouterr()
    assert "link" not in told.out and "copy' has the configuration and seed of" in told.err
    [means] = [line for line in told.out.splitlines() if "±" in line and "mean" not in line]
    assert means.split("  ")[1].strip() == "2"


def test_what_is_no_number_in_metrics_is_left_out(compared, tmp_path, monkeypatch, capsys):
    (_, other, _), _ = compared
    odd = tmp_path / "odd"
    shutil.copytree(other, odd)
    change(odd, "config.json", '"seed": 1', '"seed": 2')
    change(odd, "metrics.jsonl", r'"eval/loss": [\d.]+', '"eval/loss": NaN')
    change(odd, "metrics.jsonl", r'"images_per_second": [\d.]+', '"images_per_second": "fast"')
    with open(odd / "metrics.jsonl", "a") as file:
        file.write('{"step": 90, "epoch": 4, "eval/top1": [1]}\n{"step": 95, "eval/to')
    with open(odd / "sessions.jsonl", "a") as file:
        file.write('{"step": 90}\n')
    run_report.write(str(odd))
    given = ["train.compare", other, str(odd), "--output", str(tmp_path / "compare.html")]
    monkeypatch.setattr("sys.argv", given)
    assert compare_main() == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("odd ")]
    assert "–" in row and "50.00%" in row


def test_curves_of_long_runs_and_of_numbers_that_are_none():
    rows = [{"step": n, "epoch": n / 10, "train/loss": 1.0 + n % 2} for n in range(1000)]
    [panel] = curves.of_run([*rows, {"step": 1000, "epoch": 100.0, "train/loss": None}])
    [line] = panel.series
    assert len(line.points) == 250 and line.points[-1] == (99.9, 1.5)
    assert curves.of_run([{"step": 1, "epoch": 1.0, "train/loss": float("nan")}]) == []
    assert "<circle" in svg.figure(curves.of_run(rows[:1])[0])  # or one point would not be seen


@pytest.mark.parametrize("low, high", ((0, 1), (0.02, 0.0201), (-3, 12500), (1e-9, 1e-8)))
def test_ticks_are_round_and_within(low, high):
    found = svg.ticks(low, high)
    assert 3 <= len(found) <= 7
    assert min(found) >= low - 1e-12 and max(found) <= high * (1 + 1e-9)
    assert all(float(f"{tick:.6g}") == pytest.approx(tick, abs=1e-15) for tick in found)
