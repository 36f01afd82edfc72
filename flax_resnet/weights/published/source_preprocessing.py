"""How images were prepared for the training of published weights.

timm writes it into ``config.json``, Hugging Face Transformers into ``preprocessor_config.json``,
and this project into ``run.json`` of a run and ``FILE.json`` of an export. Of torchvision's weights
and Keras's networks it is known.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_resnet import schema
from flax_resnet.images.pixels import MAX_CHANNELS, RGB_MEAN, RGB_STD
from flax_resnet.preprocessing import Preprocessing, Size, height_and_width
from flax_resnet.text import truncate
from flax_resnet.variants import VARIANTS
from flax_resnet.weights import network_config
from flax_resnet.weights.formats.keras_files import RGB_MEAN_V1, stem_version
from flax_resnet.weights.loading import read_network
from flax_resnet.weights.naming.parts import split_part
from flax_resnet.weights.published import torchvision_files
from flax_resnet.weights.run_info import PREPROCESSING, read_run_info
from flax_resnet.weights.tensors import REPOSITORY_FILES, REPOSITORY_STEMS

TIMM_FILE, HUGGINGFACE_FILE = COMPANIONS = (network_config.FILE, "preprocessor_config.json")
INTERPOLATIONS = ("bilinear", "bicubic")
_PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_CONVNEXT_SQUASHES_FROM = 384  # pixels
_MAX_DIFFERENCE = 2e-3  # of fractions that are called equal


@dataclasses.dataclass(frozen=True)
class SourcePreprocessing:
    """The preprocessing that weights were trained with; None: unknown.

    Attributes:
      source: where it is from, such as ``"timm's config.json"``.
      mean: of each channel in 0…1, subtracted.
      std: of each channel in 0…1, divided by.
      image_size: size of the images in pixels: a side, or ``(height, width)``.
      crop_pct: fraction of the shorter side that the center crop keeps.
      interpolation: ``"bilinear"`` or ``"bicubic"``.
      notes: what :class:`flax_resnet.preprocessing.Preprocessing` cannot reproduce.
      contradictions: between two files.
    """

    source: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: Size | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    notes: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Return what is known, by name."""
        names = ("mean", "std", "image_size", "crop_pct", "interpolation")
        known = {name: getattr(self, name) for name in names}
        return {name: value for name, value in known.items() if value is not None}


def find_preprocessing(
    path: str | os.PathLike[str], identity: str = ""
) -> SourcePreprocessing | None:
    """Return the preprocessing of the weights in a file or folder; None if it is unknown.

    Args:
      path: as for :func:`flax_resnet.load_weights`. Files beside it are read if the folder is a
        repository of the Hugging Face hub.
      identity: the id by which the file was found, if any.

    Raises:
      WeightsError: the file cannot be read.
    """
    whole, (path, _) = path, split_part(path)
    published = torchvision_files.find_by_id(identity)
    if published is None and path.is_file():
        published = torchvision_files.find_by_file(path)
    if published is not None:
        return _of_torchvision(published)
    is_repository = any((path / name).is_file() for name in REPOSITORY_FILES)
    if path.is_dir() and not is_repository:
        info = read_run_info(path)
        return None if info is None else _of_run(info.preprocessing, "its run")
    if is_repository:
        return _beside(path)
    if path.name.partition(".")[0] in REPOSITORY_STEMS and (found := _beside(path.parent)):
        return found
    return _of_export(path) or _of_keras(whole)


def _of_torchvision(published: torchvision_files.PublishedWeights) -> SourcePreprocessing:
    source = f"torchvision's {published.model} V{published.version}"
    if published.resize is None:  # any size
        return SourcePreprocessing(source, mean=RGB_MEAN, std=RGB_STD)
    return SourcePreprocessing(
        source,
        mean=RGB_MEAN,
        std=RGB_STD,
        image_size=224,
        crop_pct=224 / published.resize,
        interpolation="bilinear",
    )


def _of_export(path: Path) -> SourcePreprocessing | None:
    """Return what the JSON file of an export of this project has; None if there is none."""
    companion = path.with_name(f"{path.name}.json")
    try:
        content = schema.read_json(companion, lambda value, _: value, network_config.MAX_BYTES)
        if not (isinstance(content, dict) and {"format", "preprocessing"} <= content.keys()):
            return None
        preprocessing = PREPROCESSING(content["preprocessing"], "preprocessing")
    except FileNotFoundError:
        return None
    except (OSError, schema.SchemaError) as error:
        note = f"{schema.read_error(companion, error)}; it is ignored"
        return SourcePreprocessing("the file beside it", notes=(note,))
    return _of_run(preprocessing, companion.name)


def _of_run(preprocessing: Preprocessing, source: str) -> SourcePreprocessing:
    resize, size = (
        min(height_and_width(sides)) for sides in (preprocessing.resize, preprocessing.image_size)
    )
    return SourcePreprocessing(
        source,
        mean=preprocessing.mean,
        std=preprocessing.std,
        image_size=preprocessing.image_size,
        crop_pct=size / resize,
        interpolation=preprocessing.interpolation,
    )


def _of_keras(path: str | os.PathLike[str]) -> SourcePreprocessing | None:
    """Return what ``preprocess_input`` of Keras's networks does; it does not resize."""
    network, _ = read_network(path)
    version = stem_version(network.tensors)
    if version == 1:
        return SourcePreprocessing("Keras's ResNet v1", mean=RGB_MEAN_V1, std=RGB_STD)
    if version == 2:
        return SourcePreprocessing("Keras's ResNet v2", mean=(0.5,) * 3, std=(0.5,) * 3)
    return None


# Files of a repository -----------------------------------------------------------------------


def _beside(folder: Path) -> SourcePreprocessing | None:
    """Return what the files of a repository describe; timm's takes precedence."""
    found, notes = [], []
    for name, parse in ((TIMM_FILE, _of_timm), (HUGGINGFACE_FILE, _of_huggingface)):
        try:
            content = schema.read_json(
                folder / name, lambda value, _: value, network_config.MAX_BYTES
            )
            if isinstance(content, dict) and (one := parse(content)) is not None:
                found.append(one)
        except FileNotFoundError:
            continue
        except (OSError, schema.SchemaError) as error:
            notes.append(f"{schema.read_error(folder / name, error)}; it is ignored")
    if not found:
        return SourcePreprocessing("the files beside it", notes=tuple(notes)) if notes else None
    first, *others = found
    contradictions = [
        f"{first.source} has {key}={values[key]}, {other.source} has {values_[key]}: the former is"
        " used"
        for other in others
        for values, values_ in [(first.values(), other.values())]
        for key in values
        if key in values_ and differ(values[key], values_[key])
    ]
    return dataclasses.replace(
        first, notes=(*first.notes, *notes), contradictions=tuple(contradictions)
    )


def differ(one: Any, other: Any) -> bool:
    """Return whether two values of a preprocessing differ by more than rounding."""
    pair = [value if isinstance(value, tuple) else (value,) for value in (one, other)]
    length = max(map(len, pair))
    pair = [value * length if len(value) == 1 else value for value in pair]
    if len(pair[0]) != len(pair[1]):
        return True
    return any(
        a != b if isinstance(a, str) else not math.isclose(a, b, abs_tol=_MAX_DIFFERENCE)
        for a, b in zip(*pair, strict=True)
    )


def format_value(value: Any) -> str:
    """Return a value of a preprocessing as a command line has it, with four digits."""
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_SIDE = schema.integer(1, 4096)
_MEAN = schema.sequence(schema.number(-1000, 1000), 1, MAX_CHANNELS)
_STD = schema.sequence(schema.number(1e-6, 1000), 1, MAX_CHANNELS)
_CROP_PCT = schema.number(0.05, 1)
_TIMM = schema.record(
    input_size=schema.optional(schema.sequence(_SIDE, 3, 3)),
    mean=schema.optional(_MEAN),
    std=schema.optional(_STD),
    crop_pct=schema.optional(_CROP_PCT),
    crop_mode=schema.optional(schema.text()),
    interpolation=schema.optional(schema.text()),
)


def _of_timm(content: Mapping[str, Any]) -> SourcePreprocessing | None:
    """Parse ``config.json``; None if it is not timm's. Older ones have the fields at the top."""
    config, notes = content.get("pretrained_cfg"), []
    if config is None and {"architecture", "input_size"} <= content.keys():
        config = content
    if config is None:
        return None
    fields = _TIMM(config, "pretrained_cfg")
    size, network = fields["input_size"], content.get("architecture")
    if isinstance(network, str) and network not in VARIANTS:
        notes.append(
            f"{TIMM_FILE} is of timm's {truncate(network)!r}, which is no name of this library;"
            " check that it belongs to the weights"
        )
    if fields["crop_mode"] not in (None, "center"):
        notes.append(
            f"timm resizes their images with crop_mode={fields['crop_mode']!r}; here the center is"
            " cropped"
        )
    return SourcePreprocessing(
        f"timm's {TIMM_FILE}",
        mean=fields["mean"],
        std=fields["std"],
        image_size=None if size is None else _square(size[1:]),
        crop_pct=fields["crop_pct"],
        interpolation=_interpolation(fields["interpolation"], notes),
        notes=tuple(notes),
    )


def _side_or_sides(value: Any, field: str) -> Any:
    """Accept a side, or an object such as ``{"shortest_edge": 224}``."""
    sides = dict.fromkeys(("shortest_edge", "height", "width"), schema.optional(_SIDE))
    return schema.record(**sides)(value, field) if isinstance(value, dict) else _SIDE(value, field)


_HUGGINGFACE = schema.record(
    kind=schema.optional(schema.text()),
    do_resize=schema.optional(schema.boolean),
    size=schema.optional(_side_or_sides),
    crop_pct=schema.optional(_CROP_PCT),
    do_center_crop=schema.optional(schema.boolean),
    crop_size=schema.optional(_side_or_sides),
    resample=schema.optional(schema.integer(0, len(_PILLOW_FILTERS) - 1)),
    do_rescale=schema.optional(schema.boolean),
    rescale_factor=schema.optional(schema.number(1e-6, 1e3)),
    do_normalize=schema.optional(schema.boolean),
    image_mean=schema.optional(_MEAN),
    image_std=schema.optional(_STD),
)


def _of_huggingface(content: Mapping[str, Any]) -> SourcePreprocessing | None:
    """Parse ``preprocessor_config.json`` of an image classifier."""
    if "pretrained_cfg" in content:  # a timm network in Transformers
        return _of_timm(content)
    kind = content.get("image_processor_type", content.get("feature_extractor_type"))
    fields, notes = _HUGGINGFACE({**content, "kind": kind}, HUGGINGFACE_FILE), []
    mean, std = _normalization(fields)
    size, crop_pct = _geometry(fields, notes)
    resample = fields["resample"]
    return SourcePreprocessing(
        f"Hugging Face's {HUGGINGFACE_FILE}",
        mean=mean,
        std=std,
        image_size=size,
        crop_pct=crop_pct,
        interpolation=_interpolation(
            None if resample is None else _PILLOW_FILTERS[resample], notes
        ),
        notes=tuple(notes),
    )


def _normalization(fields: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return mean and std in 0…1, for values ``(image * rescale_factor - mean) / std``."""
    factor = 1 / 255 if fields["rescale_factor"] is None else fields["rescale_factor"]
    scale = 255 * (1 if fields["do_rescale"] is False else factor)
    if fields["do_normalize"] is False:
        return (0.0,) * 3, (1 / scale,) * 3
    mean, std = fields["image_mean"], fields["image_std"]
    if mean is None or std is None:
        return None, None
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _geometry(fields: Mapping[str, Any], notes: list[str]) -> tuple[Size | None, float | None]:
    """Return the image size and the crop fraction."""
    size, crop = fields["size"], fields["crop_size"]
    size = {"shortest_edge": size} if isinstance(size, int) else size or {}
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop or {}
    shorter, sides = size.get("shortest_edge"), (size.get("height"), size.get("width"))
    squash = "Transformers resizes their images without keeping the aspect ratio; here the center"
    squash += " is cropped"
    if "convnext" in (fields["kind"] or "").lower():
        if shorter is None or shorter < _CONVNEXT_SQUASHES_FROM:
            return shorter, fields["crop_pct"] or 224 / 256
        notes.append(squash)
        return shorter, 1.0
    if None not in sides:
        notes.append(squash)
        shorter = min(sides)
    if fields["do_center_crop"] is not False and None not in (crop_sides := _sides(crop)):
        if len(set(crop_sides)) > 1 and None in sides:
            notes.append(
                f"Transformers resizes the shorter side of their images to {shorter} before the"
                " crop, whatever its shape; here the resized image covers the crop"
            )
        if fields["do_resize"] is False or shorter is None or shorter < min(crop_sides):
            return _square(crop_sides), None
        return _square(crop_sides), min(crop_sides) / shorter
    if None not in sides:
        return _square(sides), 1.0
    return shorter, None if shorter is None else 1.0


def _sides(size: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return size.get("height"), size.get("width")


def _square(sides: tuple[int, ...]) -> Size:
    height, width = sides
    return height if height == width else (height, width)


def _interpolation(name: str | None, notes: list[str]) -> str | None:
    if name is None or name in INTERPOLATIONS:
        return name
    notes.append(f"their images were resized with {name!r} interpolation, which is not available")
    return None
