"""Parts of the model card of a run for segmentation."""

from flax_resnet.images.pixels import RGB
from flax_resnet.runs import Run
from train.data.masks import IGNORED
from train.export.output import info_name


def output(run: Run, in_file: bool) -> str:
    """Return what the network computes; it is the same with and without preprocessing."""
    shape = "×".join(map(str, (*run.preprocessing.shape[:2], run.model.num_classes)))
    return (
        f"`logits`, {shape} per image: one of each class for every pixel, of which the largest is"
        " that of the pixel's class and softmax makes probabilities"
    )


def place(run: Run) -> str:
    """Return how a picture gets the size of the input."""
    height, width, _ = run.preprocessing.shape
    fill = ", ".join(map(str, run.preprocessing.fill))
    return (
        f"Shrink a picture that is larger than {height}×{width} pixels (height × width) to fit, by"
        " the mean of areas. Place it in the upper left corner of a canvas of that size filled"
        f" with ({fill})"
    )


def data(run: Run) -> list[str]:
    """Return a line on pixels without a class."""
    return [f"- masks: pixels of the value {IGNORED} have no class, in training and metrics"]


def metrics(run: Run) -> list[str]:
    """Return lines on the main metric."""
    return [
        "",
        "The main metric is `miou`, the mean over the classes of the intersection over union of"
        " the pixels of the whole split.",
    ]


_PREPARE = '''\
from PIL import Image, ImageOps


def load(path):
    """Return a picture that fits on the canvas, uint8 (height, width, 3)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):  # convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    scale = min(1, {height} / image.height, {width} / image.width)
    size = [max(1, round(scale * side)) for side in image.size]
    return np.asarray(image.resize(size, Image.Resampling.BOX) if scale < 1 else image)

'''
_IMAGES = """\
picture = load("picture.jpg")
rows, columns, _ = picture.shape
images = np.full((1, {height}, {width}, 3), {fill}, np.uint8)
images[0, :rows, :columns] = picture"""


def prepare(run: Run) -> tuple[str, str]:
    """Return code that loads a picture, and lines that define ``images`` with it."""
    height, width, _ = run.preprocessing.shape
    fields = dict(height=height, width=width, fill=run.preprocessing.fill)
    return _PREPARE.format(**fields), _IMAGES.format(**fields)


_ANSWER = """\
    names = json.load(file)["class_names"]
classes = np.asarray(logits).argmax(-1).astype(np.uint8){picture}
{save}for number, pixels in enumerate(np.bincount(classes.ravel())):
    if pixels:
        print(names[number], pixels / classes.size)
"""


def answer(run: Run, name: str) -> str:
    """Return code that writes the mask, and prints the share of each class in it."""
    has_picture = run.preprocessing.pixels == RGB
    code = _ANSWER.format(
        picture="[0, :rows, :columns]" * has_picture,
        save='Image.fromarray(classes).save("mask.png")\n' * has_picture,
    )
    return f'with open({info_name(name)!r}, encoding="utf-8") as file:\n{code}'
