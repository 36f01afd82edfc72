"""Pictures of one to three shapes, and a table of them."""

import csv

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("circle", "cross", "square", "triangle")


def draw_shapes(folder, count, seed=0, side=16):
    """Write pictures and ``labels.csv``; return the labels, bool ``(N, 4)``."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, len(NAMES)), bool)
    for row, chosen in enumerate(labels):
        chosen[rng.choice(4, rng.integers(1, 4), replace=False)] = True
        image = Image.new("RGB", (2 * side, 2 * side), tuple(rng.integers(0, 90, 3).tolist()))
        places = rng.permutation(4)
        for place, shape in zip(places, np.flatnonzero(chosen), strict=False):
            corner = np.array([place % 2, place // 2]) * side + side // 2
            _draw(ImageDraw.Draw(image), shape, corner + rng.integers(-1, 2, 2), side // 2 - 2)
        image.resize((side, side), Image.Resampling.BILINEAR).save(folder / f"{row:03}.png")
    with open(folder / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "labels"))
        for row, chosen in enumerate(labels):
            names = "|".join(NAMES[k] for k in np.flatnonzero(chosen))
            rows.writerow((f"{row:03}.png", names))
    return labels


def _draw(draw, shape, center, radius):
    x, y = center.tolist()
    low, high = (x - radius, y - radius), (x + radius, y + radius)
    color = ((250, 200, 60), (90, 240, 250), (240, 120, 240), (160, 250, 120))[shape]
    if shape == 0:
        draw.ellipse((*low, *high), fill=color)
    elif shape == 1:
        draw.line((*low, *high), fill=color, width=3)
        draw.line((low[0], high[1], high[0], low[1]), fill=color, width=3)
    elif shape == 2:
        draw.rectangle((*low, *high), fill=color)
    else:
        draw.polygon(((x, low[1]), (low[0], high[1]), high), fill=color)
