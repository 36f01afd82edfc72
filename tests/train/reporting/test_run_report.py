"""report.html and compare.html, also in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from train import evaluate
from train.compare.__main__ import main as compare_main
from train.compare.comparison import compare_runs
from train.compare.page import write
from train.compare.runs import read
from train.config.loading import default_config
from train.reporting import html_page
from train.reporting.plots import Pictures
from train.reporting.report import run_report
from train.workdir import run_files
from train.workdir.metrics_log import read_rows

EVIL = "<img src=x onerror=\"console.error('run')\">&amp;"


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    """The digits run, evaluated by the command, with hostile class names."""
    path = str(tmp_path_factory.mktemp("report") / "a <b>run")
    shutil.copytree(digits_run, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.evaluate", "--workdir", path])
        assert evaluate.main() == 0
    parts = json.dumps(run_report.read_parts(path))
    parts = json.loads(parts.replace('"true: 3\\n', json.dumps(f"true: {EVIL} 3\n")[:-1]))
    for evaluated in parts["evaluations"].values():
        evaluated["classes"][3]["name"] = EVIL + "3"
    run_report.write_parts(path, parts)
    run_report.write_report(path)
    return path


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    """The run, another seed and an unfinished one; and the page that compares them."""
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
    write(page, compare_runs([read(path) for path in paths]))
    return paths, page


def change(path, name, old, new):
    text = open(f"{path}/{name}").read()
    assert re.search(old, text)
    with open(f"{path}/{name}", "w") as file:
        file.write(re.sub(old, new, text))


@pytest.mark.parametrize("which", ("report", "compare"))
def test_hostile_names_do_nothing_in_a_browser(run, compared, browser, which, tmp_path):
    """No console message or request; :mod:`test_pages_in_a_browser` has the appearance."""
    path = f"{run}/report.html" if which == "report" else compared[1]
    (tmp_path / "page.html").write_text(open(path).read())
    page = browser.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"file://{tmp_path}/page.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = page.inner_text("body")
    assert "<b>run" in text and (EVIL in text) == (which == "report")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page.url]
    page.close()


class Strict(HTMLParser):
    """A parser that collects texts and checks that all elements are closed in order."""

    VOID = ("meta", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.sources, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.sources += [v for k, v in attributes if k in ("src", "href", "srcset", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_report_is_self_contained_and_complete(run):
    text = open(f"{run}/report.html", encoding="utf-8").read()
    page = Strict(text)
    assert "script" not in page.tags and "url(" not in text and "@import" not in text
    links = [source for source in page.sources if source.startswith("#")]
    assert len({*links}) > 5 and {link[1:] for link in links} <= {*page.ids}
    assert len(page.ids) == len({*page.ids})
    assert all(source.startswith("data:") for source in page.sources if source not in links)
    texts = " ".join(page.texts)
    last = [row for row in read_rows(run) if "eval/top1" in row][-1]
    for words in (
        *(
            f"{100 * last['eval/top1']:.2f} %",
            "finished",
            "1,437 images in train",
            "model.stage_sizes",
        ),
        *("Learning curves", "Confusion matrix", "Recall, precision and F1 of each class"),
        *("Most frequent confusions", "Precision–recall and ROC curves", "Calibration", "Grad-CAM"),
        *("Most confident mistakes", "Training images", "Configuration", "Environment"),
        *("1 session", "python -m train.main", EVIL + "3", "recall", "precision"),
        *("95 % confidence interval (Wilson)", "expected calibration error (ECE)"),
        *("reliability diagram", "images per confidence bin", "perfect calibration"),
        *("loss (nats)", "top-1 accuracy", "learning rate", "images per second", "waiting"),
    ):
        assert words in texts, words
    assert text.count('class="axis"') == 12
    [evaluated] = run_report.read_parts(run)["evaluations"].values()
    assert len(evaluated["mistakes"]) == 24 and "explained" not in evaluated
    assert all(one["heat"] for one in (*evaluated["mistakes"], *evaluated["right"]))
    right = [
        re.match(r"true: (.+) \(\d+ %\)\npredicted: \1 ", c["caption"]) for c in evaluated["right"]
    ]
    assert 3 <= len({match[1] for match in right}) == len(right) <= 10  # each of another class
    assert all(re.search(r"\nrecord \d+$", one["caption"]) for one in evaluated["mistakes"])
    # Keys with other values than their defaults come first.
    assert texts.index("model.stage_sizes") < texts.index("keys with their default values")
    assert texts.index("keys with their default values") < texts.index("optimizer.b2")


def test_training_writes_the_report_and_evaluate_output_does_not_change_it(
    digits_run, tmp_path, monkeypatch
):
    parts = run_report.read_parts(digits_run)
    assert len(parts["samples"]["cells"]) == run_report.NUM_SAMPLES
    [(name, evaluated)] = parts["evaluations"].items()
    # Grad-CAM is not compiled for so short a run.
    assert name == "test_ema" and evaluated["step"] == 44 and "explained" not in evaluated
    [row] = [row for row in read_rows(digits_run) if row["step"] == 44 and "eval/top1" in row]
    assert evaluated["top1"] == row["eval/top1"]
    assert np.trace(evaluated["confusion"]) == round(360 * row["eval/top1"])
    before = open(f"{digits_run}/report.html").read()
    arguments = [
        "train.evaluate",
        "--workdir",
        digits_run,
        "--output",
        str(tmp_path),
        "--weights=raw",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    assert evaluate.main() == 0
    assert open(f"{digits_run}/report.html").read() == before
    assert "Evaluation: test_raw" in (tmp_path / "report.html").read_text()


def test_report_write_failure_is_a_warning(tmp_path):
    warned = []
    live = run_report.LiveReport(str(tmp_path), warned.append)
    live.draw_samples(lambda: Pictures(np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"]))
    assert len(warned) == 1 and "cannot draw report.html: RunError" in warned[0]
    for _ in range(2):
        live.update(force=True)
    assert len(warned) == 2 and "cannot draw curves.svg: RunError" in warned[1]


def test_best_of_equal_steps_is_the_last_with_a_checkpoint(tmp_path):
    run_files.create(str(tmp_path), default_config())
    top1s = {20: 0.25, 40: 0.5, 60: 0.5, 80: 0.5, 100: 0.25}
    rows = [json.dumps({"step": step, "eval/top1": top1}) for step, top1 in top1s.items()]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    for step in (40, 60, 100):  # no other has a checkpoint
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert "<b>50.0 %</b><span>at step 60</span>" in run_report.page(str(tmp_path), {})


def test_reports_of_earlier_versions_are_still_shown(digits_run):
    """With an image of the matrix, maps beside images, and without what was added since."""
    part = next(iter(run_report.read_parts(digits_run)["evaluations"].values()))
    pixel = html_page.image_uri(np.zeros((2, 2, 3), np.uint8))
    for name in ("confusion", "rankings", "right", "aspect"):
        part.pop(name, None)
    part |= {"heat_map": pixel, "outputs": 300, "classes": part["classes"] * 30}
    part["explained"] = [{"image": pixel, "caption": "true: 3"}]
    part["mistakes"] = [{"image": pixel, "caption": "true: 8\nrecord 1"}]
    for one in part["classes"]:
        for name in ("f1_interval", "predicted", "precision_interval"):
            one.pop(name, None)
    value = json.loads(json.dumps({"evaluations": {"test": part}}))
    text = run_report.page(digits_run, schema_of_parts(value))
    assert "275 more classes" in text and 'aria-label="confusion matrix of 300 classes"' in text
    assert text.count(f'<image href="{pixel}"') == 1 and "Grad-CAM: image regions" in text
    assert "Most frequent confusions" not in text and "ROC curve" not in text
    Strict(text)


def schema_of_parts(value):
    """Return content as it is read from ``report.json``."""
    return run_report._PARTS(value, "")


def test_compare_reports_missing_and_unfinished_runs(compared, monkeypatch, capsys, tmp_path):
    paths, _ = compared
    output = str(tmp_path / "compare.html")
    arguments = ["train.compare", *paths, str(tmp_path / "none"), "--output", output]
    monkeypatch.setattr("sys.argv", arguments)
    assert compare_main() == 1
    printed = capsys.readouterr()
    assert f"error: '{tmp_path}/none' holds no run" in printed.err
    assert "unfinished' has not finished: step" in printed.err
    top1 = [row for row in read_rows(paths[0]) if "eval/top1" in row][-1]["eval/top1"]
    mean, deviation = np.mean([top1, 0.5]), np.std([top1, 0.5], ddof=1)
    assert f"{100 * mean:.2f} % ± {100 * deviation:.2f} %" in printed.out
    assert "batch_size  64 (2 runs), 32 (1 run)" in printed.out.splitlines()
    text = open(output).read()
    assert f"{100 * mean:.2f} % ± {100 * deviation:.2f} %" in text and "has not finished" in text
    Strict(text)


def test_compare_rejects_runs_without_metrics_and_other_outputs(tmp_path, monkeypatch, capsys):
    from train.runtime.errors import RunError, UsageError

    monkeypatch.setattr("sys.argv", ["train.compare", str(tmp_path)])
    with pytest.raises(RunError, match="none of these runs can be compared"):
        compare_main()
    monkeypatch.setattr("sys.argv", ["train.compare", str(tmp_path), "--output", "page.pdf"])
    with pytest.raises(UsageError, match=r"\.html"):
        compare_main()
    config = default_config()
    run_files.create(str(tmp_path), config)
    with pytest.raises(
        RunError, match=r"has not logged any metrics yet \(metrics\.jsonl is empty\)"
    ):
        read(str(tmp_path))


def test_compare_excludes_duplicates_from_means(compared, tmp_path, monkeypatch, capsys):
    (run, other, _), _ = compared
    (tmp_path / "link").symlink_to(run)
    shutil.copytree(run, tmp_path / "copy")
    output = str(tmp_path / "compare.html")
    arguments = [
        "train.compare",
        run,
        tmp_path / "link",
        tmp_path / "copy",
        other,
        "--output",
        output,
    ]
    monkeypatch.setattr("sys.argv", list(map(str, arguments)))
    assert compare_main() == 0
    printed = capsys.readouterr()
    assert "link" not in printed.out and "copy' has the configuration and seed of" in printed.err
    [means] = [line for line in printed.out.splitlines() if "±" in line and "mean" not in line]
    assert re.split("  +", means)[2] == "2"


def test_compare_omits_invalid_metrics(compared, tmp_path, monkeypatch, capsys):
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
    run_report.write_report(str(odd))
    arguments = ["train.compare", other, str(odd), "--output", str(tmp_path / "compare.html")]
    monkeypatch.setattr("sys.argv", arguments)
    assert compare_main() == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("odd ")]
    assert "–" in row and "50.00 %" in row


def test_updates_take_a_small_share_of_the_time_however_long_they_are(tmp_path, monkeypatch):
    now, updated = 0, []
    monkeypatch.setattr(run_report.time, "monotonic", lambda: now)
    live = run_report.LiveReport(str(tmp_path), print)

    def draw(name, _):
        nonlocal now
        if name == run_report.FILE:
            updated.append(now)
            now += 10

    monkeypatch.setattr(live, "draw", draw)
    while now < 2000:
        now += 5
        live.update(force=False)
    assert updated == [25, 540, 1055, 1570]  # 20 s, then 10 s of every 510 s, at multiples of 5 s
