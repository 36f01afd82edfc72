"""Parts of a model card that depend on the kind of the run."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax_resnet.preprocessing import Preprocessing, height_and_width
from flax_resnet.runs import Run
from train.export import pixel_card
from train.export.loaders import answer_code, is_binary


class CardTexts(NamedTuple):
    """Texts and code of a model card.

    Attributes:
      output: ``(run, in_file) -> text``: what the exported network computes; ``in_file`` is whether
        it includes the pre- and postprocessing.
      place: ``(run) -> text``: how an image gets the size of the input.
      data: ``(run) -> lines`` on the data.
      metrics: ``(run) -> lines`` on the metrics.
      prepare: ``(run) -> (code, line)``: Python code before that of the loader, and the lines that
        define ``images``, of a picture.
      answer: ``(run, name) -> code`` that prints or writes the answer.
    """

    output: Callable[[Run, bool], str]
    place: Callable[[Run], str]
    data: Callable[[Run], list[str]]
    metrics: Callable[[Run], list[str]]
    prepare: Callable[[Run], tuple[str, str]]
    answer: Callable[[Run, str], str]


_PREPARE = '''\
from PIL import Image, ImageOps


def prepare(path):
    """Return the network input of an image file, uint8 ({height}, {width}, 3)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):  # convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    width, height = (int({scaled}) for side in image.size)
    image = image.resize((width, height), Image.Resampling.{interpolation})
    left, top = round((width - {width}) / 2), round((height - {height}) / 2)
    return np.asarray(image.crop((left, top, left + {width}, top + {height})))

'''


def _prepare(run: Run) -> tuple[str, str]:
    code = _PREPARE.format(**_geometry(run.preprocessing))
    return code, 'images = np.stack([prepare("picture.jpg")])'


def _geometry(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the fields of ``_PREPARE``."""
    height, width, _ = preprocessing.shape
    scaled = f"{preprocessing.resize} * side / min(image.size)"
    if height != width:
        least_height, least_width = height_and_width(preprocessing.resize)
        scaled = f"max({least_height} * side / image.height, {least_width} * side / image.width)"
    interpolation = preprocessing.interpolation.upper()
    return dict(height=height, width=width, scaled=scaled, interpolation=interpolation)


def _output(run: Run, in_file: bool) -> str:
    """Return what the exported network computes: probabilities, or logits."""
    text, binary = f"{run.model.num_classes} classes", is_binary(run)
    if in_file:
        text = f"{'independent ' if binary else ''}probabilities of {text}"
    else:
        function = "sigmoid" if binary else "softmax"
        text = f"logits, of which {function} makes probabilities of {text}"
    return text + ", of which an image may have any number" * run.several_labels


def _place(run: Run) -> str:
    preprocessing = run.preprocessing
    size = "×".join(map(str, preprocessing.shape[:2]))
    return (
        f"{_resizing(preprocessing)} ({preprocessing.interpolation}, antialiased), center-crop"
        f" {size}"
    )


def _resizing(preprocessing: Preprocessing) -> str:
    if isinstance(preprocessing.resize, int):
        return f"Resize the shorter side to {preprocessing.resize} pixels"
    size = "×".join(map(str, preprocessing.resize))
    return f"Resize to the smallest size that covers {size} pixels (height × width)"


# By the kind of the run, see flax_resnet.weights.run_info.RunInfo.
CARD_TEXTS = {
    None: CardTexts(
        output=_output,
        place=_place,
        data=lambda run: [],
        metrics=lambda run: [],
        prepare=_prepare,
        answer=answer_code,
    ),
    "segmentation": CardTexts(
        output=pixel_card.output,
        place=pixel_card.place,
        data=pixel_card.data,
        metrics=pixel_card.metrics,
        prepare=pixel_card.prepare,
        answer=pixel_card.answer,
    ),
}
