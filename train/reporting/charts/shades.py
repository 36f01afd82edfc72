"""Colors of the cells of confusion matrices: a step per tenth, with text that can be read on it."""

STEPS = 10  # of each hue; the last one is the hue itself
_FAINTEST = 0.16  # share of the hue in the first step, on the background


def shades(back: str, right: str, wrong: str) -> dict[str, str]:
    """Return the colors of cells by name: ``r1`` … ``r10`` and ``w1`` … ``w10``.

    The color of text on each has the name with a ``t``, such as ``r1t``: black or white, whichever
    has the higher contrast, which is at least 4.5.

    Args:
      back: color of the background, ``#rgb`` or ``#rrggbb``.
      right: that of right cells.
      wrong: that of wrong cells.
    """
    colors = {}
    for letter, hue in (("r", right), ("w", wrong)):
        for step in range(1, STEPS + 1):
            part = _FAINTEST + (1 - _FAINTEST) * (step - 1) / (STEPS - 1)
            mixed = [b + part * (h - b) for b, h in zip(_rgb(back), _rgb(hue), strict=True)]
            colors[f"{letter}{step}"] = "#" + "".join(f"{round(value):02x}" for value in mixed)
            colors[f"{letter}{step}t"] = "#000" if _luminance(mixed) > 0.179 else "#fff"
    return colors


def style() -> str:
    """Return the style of cells, and of text on them, of each class ``r1`` … ``w10``."""
    # Selectors of one element: others match no copy by <use>, which has no ancestors.
    names = [f"{letter}{step}" for letter in "rw" for step in range(1, STEPS + 1)]
    return "".join(
        f".{name} {{ fill: var(--{name}); stroke: var(--{name}); }}\n"
        f"text.{name} {{ fill: var(--{name}t); stroke: none; }}\n"
        for name in names
    )


def _rgb(color: str) -> list[int]:
    digits = color.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    return [int(digits[start : start + 2], 16) for start in (0, 2, 4)]


def _luminance(rgb: list[float]) -> float:
    """Return the relative luminance of sRGB values in 0…255 (WCAG 2)."""
    linear = [
        value / 3294.6 if value <= 10.31475 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in rgb
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
