"""Report, comparison and inspection of runs of all kinds in a browser, and their size and time."""

import io
import json
import os
import random
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.train.reporting.made_runs import make_run
from tests.train.test_predict_masks import make_run as make_segmentation_run
from train.compare import comparison, runs
from train.compare import page as compare_page
from train.reporting import html_page
from train.reporting.charts.palette import DARK, LIGHT
from train.reporting.report import run_report

# A few names are as long or as odd as those of real data sets.
ODD = [
    "Tropical Kingbird (Tyrannus melancholicus) – juvenile",
    "x" * 60,
    "<b>bold</b> & more",
    "鶯",
]
PAGES = ("binary", "digits", "many", "shapes", "masks", "compare", "inspect")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``made(name)``: a workdir of 2, 200 or 1,000 classes, or another seed of the first."""
    paths = {}

    def get(name):
        if name not in paths:
            root = tmp_path_factory.mktemp("made") / name
            root.mkdir()
            classes = {"binary": 2, "other_seed": 2, "many": 200, "thousand": 1000}[name]
            if classes == 2:
                seed = int(name == "other_seed")
                paths[name] = make_run(root, ["cracked", "intact"], [62, 138], 2.0, seed)
            else:
                names = [*ODD, *(f"class {k} of {classes}" for k in range(len(ODD), classes))]
                side = 224 if classes == 1000 else 48
                paths[name] = make_run(root, names, [2] * classes, 6.0, side=side)
        return paths[name]

    return get


@pytest.fixture(scope="module")
def page_file(made, commands, tmp_path_factory, request):
    """``page_file(name)``: the file of a page."""
    folder = tmp_path_factory.mktemp("pages")

    def get(name):
        if name in ("digits", "shapes"):
            path = folder / name
            if not path.exists():
                shutil.copytree(request.getfixturevalue(f"{name}_run"), path)
                done = commands.call("train.evaluate", "--workdir", path)
                assert done.returncode == 0, done.stderr
            return path / "report.html"
        if name == "masks":
            path = folder / name
            if not path.exists():
                make_segmentation_run(str(path), 64, output_stride=4)
                done = commands.call("train.evaluate", "--workdir", path)
                assert done.returncode == 0, done.stderr
            return path / "report.html"
        if name == "compare":
            compared = [runs.read(made(one)) for one in ("binary", "other_seed")]
            compare_page.write(str(folder / "compare.html"), comparison.compare_runs(compared))
            return folder / "compare.html"
        if name == "inspect":
            output = folder / "inspect"
            images = os.path.join(os.path.dirname(made("binary")), "images")
            flags = ("--config", "resnet18_folder", f"--config.dataset.data_dir={images}")
            done = commands.call("train.inspect", *flags, "--output", output)
            assert done.returncode == 0, done.stderr
            [page] = output.glob("*.html")
            return page
        return f"{made(name)}/report.html"

    return get


# Elements that are wider than the screen, other than in regions that scroll.
OVERFLOW = """() => [...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  return box.right > innerWidth + 1 && box.width && !element.closest(".wide, nav, svg, pre");
}).map(element => element.outerHTML.slice(0, 120)).slice(0, 5)"""

# WCAG 2 contrast of the text of each element with its background, which in a chart may be a shape
# that is drawn before it; the worst one.
CONTRAST = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const shapes = new Map();
  const shapesOf = svg => {
    if (!shapes.has(svg)) shapes.set(svg, [...svg.querySelectorAll("rect")].map(shape => {
      const style = getComputedStyle(shape), [r, g, b, a = 1] = numbers(style.fill);
      const opacity = style.fillOpacity * style.opacity;
      return [shape, shape.getBoundingClientRect(), [r, g, b, a * opacity]];
    }));
    return shapes.get(svg);
  };
  const behind = element => {
    const layers = [], svg = element.closest("svg");
    if (svg) {
      const box = element.getBoundingClientRect();
      const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
      for (const [shape, place, fill] of shapesOf(svg).toReversed())
        if (place.left <= x && x <= place.right && place.top <= y && y <= place.bottom
            && shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING)
          layers.push(fill);
    }
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
    if (!own || element.closest("title") || !element.checkVisibility({visibilityProperty: true})
        || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const color = numbers(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 80)];
  }
  return worst;
}"""
LINE_WIDTHS = """() => [...document.querySelectorAll("svg:has(.axis):has(.line)")]
  .map(svg => Math.max(...[...svg.querySelectorAll(".line")]
    .map(line => line.getBoundingClientRect().width)))"""
FULLY = ((360, "light"), (1280, "dark"))
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture
def opened(browser, page_file):
    """``opened(name)``: a page in the browser; afterwards it must have been silent."""
    messages, pages = [], []

    def get(name):
        page = browser.new_page(reduced_motion="reduce")
        pages.append(page)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: None if _is_own(request, page) else 1 / 0)
        page.goto(f"file://{page_file(name)}")
        return page

    yield get
    for page in pages:
        page.close()
    assert messages == []


def _is_own(request, page):
    return request.url.startswith("data:") or request.is_navigation_request()


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_phones_tablets_and_desks_in_both_color_schemes(opened, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(name)
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    for width in (360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate(OPEN)
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", back))) < 380) == (scheme == "dark")
            charts = page.evaluate(LINE_WIDTHS)
            # One of the runs logged two points only.
            assert name in ("inspect", "shapes", "masks") or (
                len(charts) >= 4 and min(charts) > 100
            )
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(OVERFLOW) == []
            ratio, where = page.evaluate(CONTRAST)
            assert ratio >= 4.5, (width, scheme, where)
            # axe-core's own contrast takes most of its time; ours has just seen all text.
            slow = {"color-contrast": {"enabled": (width, scheme) in FULLY}}
            options = {"resultTypes": ["violations"], "preload": False, "rules": slow}
            violations = axe.run(page, options=options).response["violations"]
            found = [(one["id"], one["nodes"][0]["html"][:200]) for one in violations]
            assert found == [], (width, scheme)


@pytest.mark.parametrize("name", PAGES)
def test_printed_pages_show_everything_on_white(opened, name):
    page = opened(name)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    hidden = page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')].filter(e =>"
        " !e.checkVisibility({contentVisibilityAuto: true}) || !e.getClientRects().length)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert hidden == []
    inside = page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => getComputedStyle(f).breakInside)"
    )
    assert {*inside} <= {"avoid"}
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("name", ("binary", "compare"))
def test_navigation_stays_on_top_and_leads_to_all_sections(opened, name):
    page = opened(name)
    page.set_viewport_size({"width": 360, "height": 800})
    headings = page.locator("section > h2").all_inner_texts()
    links = page.locator("nav a").all()
    assert [link.inner_text() for link in links] == ["Top", *headings]
    for link, heading in zip(links[1:], headings, strict=True):
        link.click()
        box = page.get_by_role("heading", name=heading, exact=True, level=2).bounding_box()
        nav = page.locator("nav").bounding_box()
        assert nav["y"] == 0 and nav["height"] - 1 <= box["y"] < 800


@pytest.mark.parametrize("width", (360, 768, 1000, 1280))
def test_tiles_fill_their_rows(opened, width):
    page = opened("binary")
    page.set_viewport_size({"width": width, "height": 800})
    boxes = page.evaluate(
        "[...document.querySelectorAll('.tiles > div')].map(t => t.getBoundingClientRect())"
        ".map(b => [Math.round(b.top), b.left, b.right])"
    )
    outer = page.locator(".tiles").first.bounding_box()
    rows = {top: [box for box in boxes if box[0] == top] for top, *_ in boxes}
    for row in rows.values():
        assert abs(row[0][1] - outer["x"]) < 1
        assert abs(row[-1][2] - outer["x"] - outer["width"]) < 1
    assert page.locator(".tiles").first.bounding_box()["y"] < 400  # the answer comes first


# The places of the first letter of a name and of the number after it, which may be a line below.
ORDER = """() => [...document.querySelectorAll("main p, main td, main figcaption")].map(line => {
  const place = (node, at) => {
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    const box = range.getBoundingClientRect();
    return [Math.round(box.top / 10), box.left];
  };
  const last = line.lastChild;
  return [place(line.querySelector("bdi")?.firstChild ?? line.firstChild, 0),
          ...["47", "%"].map(part => place(last, last.data.indexOf(part)))];
})"""


@pytest.mark.parametrize("name", ["عربي", "עברית כאן", "kurz"])
def test_numbers_follow_names_that_are_written_from_right_to_left(browser, tmp_path, name):
    text = f"{name} (47 %)"
    body = [
        html_page.paragraph(text),
        html_page.table(("a", "b"), [("1", text)], "table"),
        html_page.image_grid([{"image": "data:,", "caption": text}], False),
    ]
    file = tmp_path / "page.html"
    file.write_text(html_page.page("Order", body), encoding="utf-8")
    page = browser.new_page(viewport={"width": 800, "height": 600})
    page.goto(file.as_uri())
    found = page.evaluate(ORDER)
    assert len(found) == 3 and all(places == sorted(places) for places in found), found
    page.close()


@pytest.mark.parametrize(("width", "most"), ((360, 200), (1280, 700)))
def test_long_names_leave_room_for_the_numbers_of_a_table(browser, tmp_path, width, most):
    rows = [("x" * 200, *["36.4 % (17.4–47.3 %)"] * 3), ("cat", *["–"] * 3)]
    table = html_page.table(("class", "recall", "precision", "F1"), rows, "classes")
    file = tmp_path / "page.html"
    file.write_text(html_page.page("Table", [table]))
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file.as_uri())
    assert page.locator("tbody th").first.bounding_box()["width"] < most
    if width == 1280:  # nothing to scroll
        assert page.evaluate("document.querySelector('.wide').scrollWidth") < width
    page.close()


@pytest.mark.parametrize("width", (360, 1280))
def test_images_open_large_and_close_by_keyboard(opened, width):
    page = opened("binary")
    page.set_viewport_size({"width": width, "height": 800})
    button = page.locator("button.picture").first
    caption = button.get_attribute("aria-label").removeprefix("Enlarge: ")
    window = page.get_by_role("dialog", name=caption.split(",")[0]).first
    assert not window.is_visible()
    button.focus()
    page.keyboard.press("Enter")
    box = window.bounding_box()
    assert 0 <= box["x"] and box["x"] + box["width"] <= width and box["height"] <= 800
    image = window.locator("svg").first.bounding_box()
    assert image["width"] >= 0.85 * min(width, 320) and image["x"] + image["width"] <= width
    assert window.inner_text().startswith("true: ")
    page.keyboard.press("Escape")
    assert not window.is_visible()
    assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    window.get_by_role("button", name="Close").click()
    assert not window.is_visible()


@pytest.mark.parametrize(("width", "rows"), ((360, 3), (1280, 1)))
def test_masks_open_large_beside_their_pictures(opened, width, rows):
    page = opened("masks")
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("button.picture").first.click()
    window = page.locator(".window:popover-open")
    drawings = window.locator("svg").all()
    names = [drawing.get_attribute("aria-label").split(":")[0] for drawing in drawings]
    assert names == ["Picture", "Mask", "Prediction"]
    boxes = [drawing.bounding_box() for drawing in drawings]
    assert len({round(box["y"]) for box in boxes}) == rows
    assert all(box["width"] > 250 and box["x"] + box["width"] <= width for box in boxes)


@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_matrix_of_many_classes_opens_large_in_its_colors(opened, scheme):
    page = opened("many")
    page.emulate_media(color_scheme=scheme)
    page.get_by_role("button", name="Open large, with all names").click()
    window = page.get_by_role("dialog", name="Confusion matrix of 200 classes")
    names = window.locator("svg.left text")
    assert names.count() == 200 and names.first.is_visible()
    before = names.first.bounding_box()
    window.locator(".inside").evaluate("inside => inside.scrollBy(500, 0)")
    assert names.first.bounding_box() == before  # the names of rows stay in view
    window.locator(".inside").evaluate("inside => inside.scrollTo(0, 0)")
    cells = window.locator("svg > use").bounding_box()
    picture = Image.open(io.BytesIO(window.screenshot())).convert("RGB")
    shown = {*map(tuple, np.asarray(picture).reshape(-1, 3).tolist())}
    palette = {"light": LIGHT, "dark": DARK}[scheme]
    for hue in "rw":
        names = [f"{hue}{step}" for step in range(1, 11)]
        assert shown & {tuple(bytes.fromhex(palette[name][1:])) for name in names}
    assert cells["width"] > 2000


def test_page_of_a_thousand_classes_is_small(made):
    path = made("thousand")
    [part] = run_report.read_parts(path)["evaluations"].values()
    assert len(part["mistakes"]) == 24 and len(part["classes"]) == 1000
    grad_cam = 8 * 2 * 30_000  # images and maps, which only trained networks have
    assert os.path.getsize(f"{path}/report.html") < 3_000_000 - grad_cam


def test_report_of_a_hundred_thousand_rows_is_written_quickly(made, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(made("binary"), path)
    rng = random.Random(0)
    evaluated = json.loads(open(path / "metrics.jsonl").readlines()[-1])
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(10, 1_000_010, 10):
            row = evaluated if step % 10_000 == 0 else {"train/loss": 1 + rng.random()}
            row |= {"train/top1": rng.random(), "learning_rate": 1e-3, "images_per_second": 900.0}
            row |= {"step": step, "epoch": step / 1e4, "input_wait_fraction": 0.01}
            file.write(json.dumps(row | {"time": 1.8e9 + step}) + "\n")
    times = []
    for _ in range(3):  # the shortest: other processes run meanwhile
        start = time.process_time()
        run_report.write_report(str(path))
        times.append(time.process_time() - start)
    assert min(times) < 2
