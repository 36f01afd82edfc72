"""Train four small runs on drawn images and take the pictures of the documentation.

    python docs/screenshots.py            # a few minutes on two cores; needs Chromium

Data and runs stay in ``runs/screenshots``; a second call only reports and takes pictures again. The
networks are small and trained briefly, so that there are mistakes to show.
"""

import argparse
import csv
import itertools
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

IMAGES = pathlib.Path(__file__).parent / "images"
SMALL = ("--config.model.width=16", "--config.model.stage_sizes=(1,1,1,1)")
FOLDER = ("--config", "configs/resnet18_folder.py", *SMALL)
COLORS = {
    **{"red": (220, 50, 40), "orange": (240, 140, 30), "yellow": (235, 215, 50)},
    **{"green": (60, 170, 70), "teal": (40, 170, 170), "blue": (50, 90, 220)},
    **{"violet": (140, 70, 200), "pink": (240, 130, 180), "brown": (130, 85, 50)},
    "gray": (140, 140, 140),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
FILLS = ("plain", "striped", "dotted", "ring")
SIDE = 64  # of drawings, before they are reduced


def draw_surfaces(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """Write gray surfaces of odd sizes, 31 % of them cracked; some others are scratched."""
    for name, count in (("cracked", 93), ("intact", 207)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = _surface(name == "cracked", rng)
            image.save(folder / name / f"{name[:2]}_{number:03}.png")


def _surface(is_cracked: bool, rng: np.random.Generator) -> Image.Image:
    height, width = map(int, rng.integers(80, 115, 2))
    gray = np.full((height, width), 128 + 15 * rng.normal())
    for scale in (2, 5, 11):
        noise = rng.normal(size=(height // scale + 2, width // scale + 2)).astype(np.float32)
        large = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        gray += (8 + 1.6 * scale) * np.asarray(large)
    image = Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if is_cracked:
        point, direction = np.array([rng.uniform(0, width), 0.0]), np.array([0.0, 1.0])
        points = [tuple(point)]
        while point[1] < height:
            direction = direction + rng.normal(size=2) * (0.5, 0.1)
            across, down = 5 * direction / np.linalg.norm(direction)
            point = point + np.array([across, max(1.0, down)])
            points.append(tuple(point))
        draw.line(points, fill=int(rng.integers(20, 95)), width=int(rng.integers(1, 3)))
    for _ in range(rng.integers(0, 3)):
        start = rng.uniform(0, 1, 2) * (width, height)
        end = start + 22 * rng.normal(size=2)
        draw.line((*start, *end), fill=int(rng.integers(40, 120)), width=1)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def draw_kinds(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """Write eight noisy images of each combination of a color, a fill and a shape: 200 classes."""
    for color, fill, shape in itertools.product(COLORS, FILLS, SHAPES):
        (folder / f"{color} {fill} {shape}").mkdir(parents=True)
        for number in range(8):
            back = tuple(map(int, rng.integers(0, 255, 3)))
            image = Image.new("RGB", (SIDE, SIDE), back)
            _draw(image, color, fill, shape, rng.uniform(26, 38, 2), rng.uniform(17, 25), rng)
            pixels = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)
            pixels = np.clip(pixels + 8 * rng.normal(size=pixels.shape), 0, 255)
            path = folder / f"{color} {fill} {shape}" / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def draw_scenes(folder: pathlib.Path, rng: np.random.Generator) -> None:
    """Write images of none to four shapes, and the table ``labels.csv``."""
    folder.mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "labels"))
        for number in range(400):
            image = Image.new("RGB", (SIDE, SIDE), tuple(map(int, rng.integers(0, 110, 3))))
            often = zip(SHAPES, (0.5, 0.4, 0.3, 0.2, 0.12), strict=True)
            shapes = [shape for shape, share in often if rng.random() < share][:4]
            for place, shape in zip(rng.permutation(4), shapes, strict=False):
                center = 16 + 32 * np.array([place % 2, place // 2]) + 2 * rng.normal(size=2)
                color, fill = rng.choice(list(COLORS)), rng.choice(FILLS)
                _draw(image, color, fill, shape, center, rng.uniform(10, 14), rng)
            name = f"{number:03}.png"
            image.resize((48, 48), Image.Resampling.BILINEAR).save(folder / name)
            table.writerow((name, "|".join(shapes)))


def _draw(
    image: Image.Image,
    color: str,
    fill: str,
    shape: str,
    center: np.ndarray,
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Draw a shape, turned at random and in about that color."""
    outline = _outline(shape) @ _turn(rng.uniform(0, 2 * np.pi)) * radius
    mask = np.array(_filled(image.size, outline + center))
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    if fill == "striped":
        mask[(x + y) % 12 < 5] = 0
    elif fill == "dotted":
        mask[(x % 10 < 5) & (y % 10 < 5)] = 0
    elif fill == "ring":
        mask[np.array(_filled(image.size, 0.55 * outline + center)) > 0] = 0
    shade = np.clip(COLORS[color] + 14 * rng.normal(size=3), 0, 255).astype(int)
    image.paste(tuple(map(int, shade)), (0, 0), Image.fromarray(mask))


def _outline(shape: str) -> np.ndarray:
    """Return the corners of a shape in the unit circle, ``(N, 2)``."""
    if shape == "cross":
        corner = np.array([[1, 0.33], [0.33, 0.33], [0.33, 1]])
        return np.concatenate([corner @ _turn(k * np.pi / 2) for k in range(4)])
    corners = {"circle": 40, "square": 4, "triangle": 3, "star": 10}[shape]
    angles = 2 * np.pi * np.arange(corners) / corners
    lengths = np.where(np.arange(corners) % 2, 0.45, 1.0) if shape == "star" else np.ones(corners)
    return lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _filled(size: tuple[int, int], outline: np.ndarray) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon(list(map(tuple, outline)), fill=255)
    return mask


# Run: how its images are drawn, and the arguments of train.main; {data} is their folder.
RUNS = {
    "digits": (None, ("--config", "configs/resnet20_digits.py")),
    "surfaces": (
        draw_surfaces,
        (
            *FOLDER,
            *("--config.dataset.data_dir={data}", "--config.dataset.image_size=96"),
            *("--config.num_epochs=20", "--config.schedule.learning_rate=0.05"),
            "--config.eval.every_epochs=2",
        ),
    ),
    "kinds": (
        draw_kinds,
        (
            *FOLDER,
            *("--config.dataset.data_dir={data}", "--config.dataset.image_size=32"),
            *("--config.num_epochs=30", "--config.schedule.learning_rate=0.1"),
            *("--config.augment.rrc_scale=(0.8,1.0)", "--config.eval.every_epochs=3"),
        ),
    ),
    "scenes": (
        draw_scenes,
        (
            *FOLDER,
            *("--config.task=multi_label", "--config.dataset.name=table"),
            *("--config.dataset.labels={data}/labels.csv", "--config.dataset.data_dir={data}"),
            *("--config.dataset.image_size=48", "--config.num_epochs=30"),
            *("--config.schedule.learning_rate=0.1", "--config.eval.every_epochs=3"),
        ),
    ),
}


def train(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Draw the images of a run, train it with an interruption, and evaluate it; return its page."""
    draw, arguments = RUNS[name]
    data, workdir = folder / "data" / name, folder / name
    if draw is not None and not data.exists():
        draw(data, np.random.default_rng(7))
    command = [sys.executable, "-m", "train.main", "--workdir", str(workdir)]
    command += [argument.format(data=data) for argument in arguments]
    if not workdir.exists():
        first = subprocess.Popen(command)
        while first.poll() is None and not _has_evaluation(workdir):
            time.sleep(0.5)
        first.send_signal(signal.SIGTERM)
        first.wait()
    for each in (command, [sys.executable, "-m", "train.evaluate", "--workdir", str(workdir)]):
        subprocess.run(each, check=True)
    return workdir / "report.html"


def _has_evaluation(workdir: pathlib.Path) -> bool:
    log = workdir / "metrics.jsonl"
    return log.exists() and "eval/top1" in log.read_text()


# File in docs/images: the run, the heading that is on top (None: the first screen), and the height.
PICTURES = {
    "report": ("digits", None, 900),
    "report-two-classes": ("surfaces", None, 640),
    "report-many-classes": ("kinds", None, 640),
    "report-several-labels": ("scenes", None, 640),
    "report-confusion": ("surfaces", "Confusion matrix", 760),
    "report-confusion-many": ("kinds", "Confusion matrix", 760),
    "report-mistakes": ("digits", "mistakes", 760),
}


def photograph(pages: dict[str, pathlib.Path]) -> None:
    """Write all pictures of the pages."""
    from playwright.sync_api import sync_playwright

    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome")
    executable = next(filter(None, map(shutil.which, browsers)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for name, (run, heading, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1120, "height": height})
            page.goto(f"file://{pages[run].resolve()}")
            if heading is not None:
                title = page.locator("h3", has_text=heading).first
                top = title.evaluate("e => e.getBoundingClientRect().top + scrollY")
                page.evaluate(f"scrollTo({{top: {top} - 60, behavior: 'instant'}})")
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path)
            page.close()
            with Image.open(path) as picture:
                reduced = picture.convert("RGB").quantize(200, dither=Image.Dither.NONE)
            reduced.save(path, optimize=True)
            print(f"{path} {path.stat().st_size / 1000:.0f} kB")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, default="runs/screenshots")
    folder = parser.parse_args().folder
    photograph({name: train(name, folder) for name in RUNS})


if __name__ == "__main__":
    main()
