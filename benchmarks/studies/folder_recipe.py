"""The defaults of configs/resnet18_folder.py: what each costs or gives on four sets of pictures.

    python benchmarks/studies/folder_recipe.py --out FILE [--sets cracks …] [--variants plain …]
        [--epochs 12] [--seeds 3] [--blocks 1] [--width 16] [--size 48]

Needs scikit-image, whose package holds photographs; the other sets are rendered. By default, for a
CPU, the network has one block per stage and a quarter of ResNet-18's width, and pictures have 48
pixels a side; ``--blocks 2 --width 64 --size 96`` trains ResNet-18. Every finished run appends a
line of JSON to FILE, and runs that FILE already holds are not repeated. ``--table FILE`` prints the
means over seeds. A seed chooses the pictures and the initial weights.
"""

import argparse
import collections
import functools
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np

from train import arrays_source, load_config
from train.engine.experiment import build_experiment
from train.engine.programs import SharedPrograms
from train.engine.start import initial_state
from train.loop import Loop
from train.reporting.console import Console
from train.runtime import compilation_cache
from train.runtime.signals import StopRequest

# The recipe before this study, but for size and epochs.
OLD = {
    "dataset.crop_pct": 0.875,
    "augment.rrc_scale": (0.25, 1.0),
    "augment.rrc_full_epochs": 0.0,
    "model.zero_init_last": True,
    "label_smoothing": 0.1,
    "schedule.name": "cosine",
    "schedule.warmup_epochs": 3.0,
    "schedule.learning_rate": 0.05,
}
NO_CROP = {"augment.rrc_scale": (1.0, 1.0)}
FULL = {"dataset.crop_pct": 1.0}
SHARP = {"label_smoothing": 0.0}
ONE_CYCLE = {"schedule.name": "one_cycle", "schedule.warmup_epochs": 0.0}
PLAIN = NO_CROP | FULL | SHARP | ONE_CYCLE | {"model.zero_init_last": False}
COSINE = PLAIN | {"schedule.name": "cosine", "schedule.warmup_epochs": 3.0}
VARIANTS = {
    "old": {},
    # one factor at a time
    "no crop": NO_CROP,
    "crop 0.5": {"augment.rrc_scale": (0.5, 1.0)},
    "crop_pct 1": FULL,
    "no smoothing": SHARP,
    "one cycle": ONE_CYCLE,
    "no zero init": {"model.zero_init_last": False},
    "rate 0.02": {"schedule.learning_rate": 0.02},
    "rate 0.1": {"schedule.learning_rate": 0.1},
    # all of these but the rates, and one factor at a time against that
    "plain": PLAIN,
    "plain, crop 0.7": PLAIN | {"augment.rrc_scale": (0.7, 1.0)},
    "plain, crop 0.5": PLAIN | {"augment.rrc_scale": (0.5, 1.0)},
    "plain, crop 0.25": PLAIN | {"augment.rrc_scale": (0.25, 1.0)},
    "plain, crop_pct 0.875": PLAIN | {"dataset.crop_pct": 0.875},
    "plain, smoothing": PLAIN | {"label_smoothing": 0.1},
    # the recipe since this study
    "plain, cosine": COSINE,
    "plain, cosine, crop 0.875": COSINE | {"augment.rrc_scale": (0.875, 1.0)},
    "plain, cosine, crop 0.7": COSINE | {"augment.rrc_scale": (0.7, 1.0)},
    "plain, cosine, crop 0.5": COSINE | {"augment.rrc_scale": (0.5, 1.0)},
    "plain, cosine, crop 0.25": COSINE | {"augment.rrc_scale": (0.25, 1.0)},
    "plain, cosine, rate 0.02": COSINE | {"schedule.learning_rate": 0.02},
    "plain, cosine, rate 0.01": COSINE | {"schedule.learning_rate": 0.01},
    "plain, cosine, rate 0.02, zero init": COSINE
    | {"schedule.learning_rate": 0.02, "model.zero_init_last": True},
    "plain, zero init": PLAIN | {"model.zero_init_last": True},
    "plain, rate 0.02": PLAIN | {"schedule.learning_rate": 0.02},
    "plain, rate 0.1": PLAIN | {"schedule.learning_rate": 0.1},
}


def shipped():
    """Return the keys of OLD as configs/resnet18_folder.py sets them."""
    config = load_config("resnet18_folder")
    return {key: functools.reduce(getattr, key.split("."), config) for key in OLD}


VARIANTS["now"] = shipped()
# Keys of the input pipeline and of the initial weights: runs that differ in them share programs.
HOST_KEYS = (
    "augment.rrc_scale",
    "augment.rrc_full_epochs",
    "dataset.crop_pct",
    "model.zero_init_last",
)


# Of a run; a quarter of ResNet-18's width and 48 pixels where a line of earlier runs has neither.
CONDITIONS = ("width", "size", "blocks", "epochs", "variant", "set", "seed")
SMALL = {"width": 16, "size": 48}


class HostPrograms(SharedPrograms):
    """Compiled steps that runs share whatever their crops and initial weights are."""

    def _shared(self, key, make):
        same = lambda part: isinstance(part, tuple) and part[0] in HOST_KEYS  # noqa: E731
        return super()._shared(tuple(part for part in key if not same(part)), make)


def cracks(rng, side):
    """Return 600 training and 600 test pictures of gray surfaces, 31 % with a fine crack."""
    labels = (rng.random(1200) < 0.31).astype(int)
    images = np.stack([surface(rng, side, bool(label)) for label in labels])
    return split_at(600, images, labels, ("intact", "cracked"))


def surface(rng, side, cracked):
    """Return a gray surface ``(side, side)`` with spots, pores and light from one side."""
    image = np.full((side, side), rng.uniform(90, 170), np.float32)
    for sigma, strength in ((0.7, 7), (2, 6), (8, 14)):
        noise = cv2.GaussianBlur(
            rng.standard_normal((side, side)).astype(np.float32), (0, 0), sigma
        )
        image += noise * (strength * rng.uniform(0.5, 1.5) / noise.std())
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    image += rng.uniform(0, 60) * (x * np.cos(angle) + y * np.sin(angle))
    for _ in range(rng.integers(12)):  # pores, in both classes
        center = tuple(int(v) for v in rng.integers(0, side, 2))
        shade = float(image[center[1], center[0]] - rng.uniform(20, 60))
        cv2.circle(image, center, int(rng.integers(1, 3)), shade, -1, cv2.LINE_AA)
    for _ in range(rng.integers(2)):  # straight scratches, in both classes
        ends = [tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(2)]
        shade = float(image.mean() + rng.choice([-1, 1]) * rng.uniform(15, 35))
        cv2.line(image, *ends, shade, 1, cv2.LINE_AA)
    if cracked:
        crack(rng, image)
    image += rng.standard_normal(image.shape) * rng.uniform(2, 8)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def crack(rng, image):
    """Draw a dark winding line, thin and of low contrast, over part of ``image``."""
    side = len(image)
    heading, point = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.85, 2) * side
    points, step = [point], side / 25
    for _ in range(rng.integers(15, 40)):
        heading += rng.normal(0, 0.5)
        points.append(points[-1] + step * np.array([np.cos(heading), np.sin(heading)]))
    mask = np.zeros_like(image)
    path = np.rint(np.array(points)).astype(np.int32)
    cv2.polylines(mask, [path], False, 1.0, int(rng.integers(1, 3)), cv2.LINE_AA)
    image -= rng.uniform(45, 90) * mask


def shapes(rng, side):
    """Return 600 training and 600 test pictures of four colored shapes on clutter."""
    names = ("circle", "cross", "ring", "triangle")
    labels = rng.integers(len(names), size=1200)
    return split_at(
        600, np.stack([scene(rng, side, names[label]) for label in labels]), labels, names
    )


def scene(rng, side, name):
    """Return a shape ``(side, side, 3)`` of any color, size, place and rotation on clutter."""
    color = lambda: tuple(float(v) for v in rng.integers(0, 256, 3))  # noqa: E731
    image = np.full((side, side, 3), color(), np.float32)
    for _ in range(rng.integers(2, 7)):
        ends = [tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(2)]
        if rng.random() < 0.5:
            cv2.line(image, *ends, color(), int(rng.integers(1, 4)), cv2.LINE_AA)
        else:
            cv2.rectangle(image, *ends, color(), int(rng.integers(1, 3)))
    radius = rng.uniform(0.15, 0.4) * side
    center = rng.uniform(radius, side - radius, 2)
    mask = np.zeros((side, side), np.float32)
    if name in ("circle", "ring"):
        thickness = -1 if name == "circle" else max(2, round(radius / 3))
        place = tuple(int(v) for v in np.rint(center))
        cv2.circle(mask, place, round(radius), 1.0, thickness, cv2.LINE_AA)
    else:
        arm = ((1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3))
        corners = {
            "triangle": ((0, -1.1), (1, 0.8), (-1, 0.8)),
            "cross": arm + tuple((-x, -y) for x, y in arm),
        }[name]
        turn = rng.uniform(-0.6, 0.6)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        path = np.rint(center + radius * 0.9 * np.array(corners) @ rotation.T).astype(np.int32)
        cv2.fillPoly(mask, [path], 1.0, cv2.LINE_AA)
    image += mask[..., None] * (np.array(color()) - image)
    image += rng.standard_normal(image.shape) * rng.uniform(5, 20)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def photographs(rng, side):
    """Return patches of 10 gray photographs: the class is the photograph, half are for testing."""
    from skimage import data

    names = ("brick", "camera", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field")
    names += ("immunohistochemistry", "moon", "stereo_motorcycle")
    images, labels, is_train = [], [], []
    for label, name in enumerate(names):
        photo = getattr(data, name)()
        photo = photo[0] if isinstance(photo, tuple) else photo
        photo = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) if photo.ndim == 3 else photo
        size = 48  # patches do not overlap
        rows, columns = photo.shape[0] // size, photo.shape[1] // size
        places = rng.permutation(rows * columns)[:100]
        for number, place in enumerate(places):
            top, left = size * (place // columns), size * (place % columns)
            images.append(photo[top : top + size, left : left + size])
            labels.append(label)
            is_train.append(number % 2 == 0)
    return split(np.array(is_train), np.stack(images), np.array(labels), names)


def faces(rng, side):
    """Return 100 training and 100 test pictures of faces and other things, 25 pixels a side."""
    from skimage.data import lfw_subset

    images = np.rint(lfw_subset() * 255).astype(np.uint8)
    order = rng.permutation(200)
    return split_at(100, images[order], (order < 100).astype(int), ("other", "face"))


SETS = {f.__name__: f for f in (cracks, shapes, photographs, faces)}


def split_at(count, images, labels, names):
    """Return two sources: the first ``count`` pictures and the others."""
    return split(np.arange(len(labels)) < count, images, labels, names)


def split(is_train, images, labels, names):
    """Return the sources for training and evaluation."""
    return tuple(
        arrays_source(images[chosen], labels[chosen], names, part)
        for part, chosen in (("train", is_train), ("val", ~is_train))
    )


def recipe(width, size, blocks, epochs, variant, seed):
    """Return the configuration of one run."""
    keys = OLD | VARIANTS[variant] | {"seed": seed, "num_epochs": epochs}
    keys |= {
        "dataset.image_size": size,
        "model.width": width,
        "model.stage_sizes": (blocks,) * 4,
    }
    keys |= {"eval.every_epochs": 0.0, "checkpoint.every_epochs": 0.0, "eval.batch_size": 100}
    values = [(key, json.dumps(value).strip('"[]')) for key, value in keys.items()]
    return load_config("resnet18_folder", values)


@functools.cache
def pictures(name, size, seed):
    """Return the sources of a set, for training and evaluation; rendered a quarter larger."""
    return SETS[name](np.random.default_rng(seed), size * 5 // 4)


def train(config, sources, programs):
    """Train one run and return the evaluation of its final weights."""
    experiment = build_experiment(config, "unused", sources)
    with Console(experiment.intervals.num_steps, False) as console:
        state = initial_state(experiment, None)
        return Loop(experiment, state, None, console, None, StopRequest(), programs).run()


def record(path, conditions, result):
    """Append the conditions and results of a run to a file."""
    row = dict(zip(CONDITIONS, conditions, strict=True))
    row |= {key: result[key] for key in ("top1", "balanced_accuracy", "loss")}
    with Path(path).open("a") as file:
        file.write(json.dumps(row) + "\n")


def finished(path):
    """Return the conditions and results of earlier runs."""
    path = Path(path)
    lines = path.read_text().splitlines() if path.exists() else []
    return [SMALL | json.loads(line) for line in lines]


def print_table(path):
    """Print mean and standard deviation over seeds of top-1, in percent, as Markdown."""
    values, sets = collections.defaultdict(list), []
    for row in finished(path):
        values[*(row[key] for key in CONDITIONS[:-1])].append(100 * row["top1"])
        sets += [row["set"]] if row["set"] not in sets else []
    columns = CONDITIONS[:-2]
    print("|", " | ".join((*columns, *sets, "mean")), "|")
    print("|" + "---|" * (len(columns) + len(sets) + 1))
    for conditions in dict.fromkeys(key[:-1] for key in values):
        each = [values.get((*conditions, name), []) for name in sets]
        cells = [
            f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" if len(v) > 1 else "–"
            for v in each
        ]
        complete = f"{statistics.mean(statistics.mean(v) for v in each):.1f}" if all(each) else "–"
        print(f"| {' | '.join(map(str, conditions))} |", " | ".join(cells), f"| {complete} |")


def make_parser(text, variants, epochs):
    """Return a parser of the flags that the studies of recipes share."""
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--table")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--variants", nargs="+", choices=variants, default=list(variants))
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seeds", type=int, default=3)
    return parser


def main():
    """Train every variant on every set with every seed, or print the table of earlier runs."""
    parser = make_parser(__doc__, VARIANTS, epochs=12)
    parser.add_argument("--blocks", type=int, default=1, help="per stage; ResNet-18: 2")
    parser.add_argument("--width", type=int, default=SMALL["width"], help="ResNet-18: 64")
    parser.add_argument("--size", type=int, default=SMALL["size"], help="of the images")
    flags = parser.parse_args()
    if flags.table:
        return print_table(flags.table)
    done = {tuple(row[key] for key in CONDITIONS) for row in finished(flags.out)}
    compilation_cache.configure()
    programs = HostPrograms()
    for seed in range(flags.seeds):
        for variant in flags.variants:
            for name in flags.sets:
                sizes = (flags.width, flags.size, flags.blocks, flags.epochs)
                conditions = (*sizes, variant, name, seed)
                if conditions in done:
                    continue
                config = recipe(*sizes, variant, seed)
                result = train(config, pictures(name, flags.size, seed), programs)
                record(flags.out, conditions, result)


if __name__ == "__main__":
    main()
