"""TFDS data sets with a segmentation feature, prepared by a builder of our own."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.masked import mask, png
from tests.train.pictures import encode, photograph
from train.config.loading import default_config
from train.data.datasets import open_source
from train.data.loader import DataLoader
from train.data.sources.tfds_masks import find_image, find_mask, mask_meaning
from train.runtime.errors import RunError, UsageError

SIZES = [(20 + number % 3, 26 + number % 4) for number in range(12)]
Image = tfds.features.Image
NAMED = tfds.features.LabeledImage(labels=["sky", "tree", "car"], shape=(None, None, 1))


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Images of odd sizes with masks: named classes, values 1…3, and a class of the image."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": Image(shape=(None, None, 3), encoding_format="jpeg"),
            "labeled": NAMED,
            "trimap": Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(8)),
            "validation": self._generate_examples(range(8, 12)),
        }

    def _generate_examples(self, numbers):
        for number in numbers:
            classes = mask(number, *SIZES[number])
            yield (
                number,
                {
                    "image": encode(
                        photograph(number, *SIZES[number]), "JPEG", quality=100, subsampling=0
                    ),
                    "labeled": png(classes),
                    "trimap": png(classes + np.uint8(1), palette=bytes(range(30))),
                    "label": number % 2,
                    "file_name": f"{number}.jpg",
                },
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the scenes are prepared."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    tfds.disable_progress_bar()
    Scenes(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def opened(folder, split="train", **keys):
    dataset = default_config().dataset
    dataset.update({"name": "tfds:scenes", "data_dir": folder} | keys)
    return open_source(dataset, split)


def test_a_feature_with_named_classes_has_masks(folder):
    source = opened(folder, "validation", label_key="labeled")
    assert source.label_kind == "mask" and source.class_names == ("sky", "tree", "car")
    assert len(source) == 4
    for index in range(4):
        number = int(source.record_name(index).removesuffix(".jpg"))
        image, classes = source.decode(index)
        np.testing.assert_array_equal(classes, mask(number, *SIZES[number]))
        assert abs(image.astype(int) - photograph(number, *SIZES[number])).max() < 12


def test_values_of_another_feature_are_chosen(folder):
    with pytest.raises(UsageError, match=r"classes in 'trimap' of scenes are not known .*mask_val"):
        opened(folder, label_key="trimap")
    source = opened(folder, label_key="trimap", mask_values=(1, 3), ignore_values=(2,))
    number = int(source.record_name(0).removesuffix(".jpg"))
    expected = np.array([0, 255, 1])[mask(number, *SIZES[number])]
    np.testing.assert_array_equal(source.decode(0)[1], expected)
    assert source.class_names == ("class 0", "class 1")
    with pytest.raises(RunError, match=r"of 8 images .* cannot be used: .* no class: 3"):
        opened(folder, label_key="trimap", mask_values=(1, 2))


def test_without_a_key_the_class_of_the_image_is_the_label(folder):
    assert opened(folder).label_kind == "class"
    with pytest.raises(UsageError, match=r"mask_values=\(1, 2\) has no meaning for 'tfds:scenes'"):
        opened(folder, mask_values=(1, 2))


def test_batches_have_masks_of_parts_and_folds(folder):
    config = default_config()
    config.dataset.update(name="tfds:scenes", data_dir=folder, label_key="labeled", image_size=32)
    loader = DataLoader(config, "train[:50%]", training=False).load()
    (batch,) = (loader.examples(loader.cached, batch) for batch in loader.eval_batches(4))
    assert batch["image"].shape == (4, 32, 32, 3) and batch["label"].shape == (4, 32, 32)
    assert batch["valid"].all() and not batch["bad"].any()
    sizes = [(batch["label"][i] != 255).any(1 - axis).sum() for i in range(4) for axis in (0, 1)]
    assert [*zip(sizes[::2], sizes[1::2], strict=True)] == [
        source_size(loader.source, i) for i in range(4)
    ]
    held_out = opened(folder, "held_out", label_key="labeled", fold="1/4")
    assert len(held_out) == 2


def source_size(source, index):
    return SIZES[int(source.record_name(index).removesuffix(".jpg"))]


GRAY, COLOR = Image(shape=(None, None, 1)), Image(shape=(None, None, 3))
CITYSCAPES = {"disparity_map": GRAY, "image_left": COLOR, "segmentation_label": GRAY}
CLASS = tfds.features.ClassLabel(names=["a", "b"])


@pytest.mark.parametrize(
    ("features", "label_key", "image", "masks"),
    [
        (CITYSCAPES, "", "image_left", "segmentation_label"),
        (CITYSCAPES, "disparity_map", "image_left", "disparity_map"),
        ({"mask": GRAY, "image": GRAY}, "mask", "image", "mask"),
        ({"photo": COLOR, "annotation": NAMED}, "", "photo", "annotation"),
        ({"photo": COLOR, "annotation": NAMED, "label": CLASS}, "", None, None),
        ({"image": COLOR, "segmentation_mask": GRAY, "label": CLASS}, "label", None, None),
        ({"a": GRAY, "b": GRAY, "c": COLOR}, "", None, None),
        ({"image": COLOR, "depth": Image(shape=(4, 4, 1), dtype=np.uint16)}, "", None, None),
    ],
)
def test_masks_are_found_among_features(features, label_key, image, masks):
    assert find_mask(features, label_key) == masks
    if masks:
        assert find_image(features, masks, "x") == image


def test_meanings_of_known_data_sets():
    """The values are those of the data sets' own documentation."""
    names, values = mask_meaning("oxford_iiit_pet", "segmentation_mask", GRAY, None)
    assert dict(zip(values.values, names, strict=True)) == {1: "pet", 2: "background", 3: "border"}
    names, values = mask_meaning("cityscapes", "segmentation_label", GRAY, None)
    assert len(names) == 19
    table = values.table(19)
    assert [names[table[value]] for value in (7, 23, 26, 33)] == ["road", "sky", "car", "bicycle"]
    assert (table[[0, 9, 29, 34, 255]] == 255).all()
    dataset = SimpleNamespace(mask_values=(1, 2), ignore_values=(3,))
    names, values = mask_meaning("oxford_iiit_pet", "segmentation_mask", GRAY, dataset)
    assert len(names) == 2 and values.ignored == (3,)
