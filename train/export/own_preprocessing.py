"""Code that classifies image files with another library's own preprocessing."""

import dataclasses

from flax_resnet.images.pixels import RGB
from flax_resnet.runs import Run
from train.export.loaders import answer_code, is_binary
from train.export.output import for_hub, info_name


@dataclasses.dataclass(frozen=True)
class OwnPreprocessing:
    """Python code that is run in the folder of an export.

    Attributes:
      setup: imports the library and loads the network.
      probabilities: computes ``probabilities`` of ``pictures``, Pillow images of any size.
      answer: prints the classes of ``picture.jpg``.
    """

    setup: str
    probabilities: str
    answer: str


def own_preprocessing(run: Run, format: str, name: str) -> OwnPreprocessing | None:
    """Return the code for an export, or None if its library does not preprocess its images."""
    if not for_hub(format, name) or run.preprocessing.pixels != RGB:
        return None
    return _pipeline(run, name) if format == "huggingface" else _transform(run, name)


def _pipeline(run: Run, name: str) -> OwnPreprocessing:
    classes = run.model.num_classes
    setup = """\
from transformers import pipeline

classify = pipeline("image-classification", model=".")
"""
    probabilities = f"""\
answers = [classify(picture, top_k={classes}) for picture in pictures]
scores = [{{answer["label"]: answer["score"] for answer in one}} for one in answers]
labels = classify.model.config.id2label
probabilities = [[one[labels[index]] for index in range({classes})] for one in scores]
"""
    answer = """\
for answer in classify("picture.jpg"):
    print(answer["label"], answer["score"])
"""
    if run.several_labels:
        answer = f"""\
with open({info_name(name)!r}, encoding="utf-8") as file:
    thresholds = json.load(file).get("decision_thresholds", {{}})
for answer in classify("picture.jpg", top_k={classes}):
    if answer["score"] >= thresholds.get(answer["label"], 0.5):
        print(answer["label"], answer["score"])
"""
        setup = "import json\n\n" + setup
    return OwnPreprocessing(setup, probabilities, answer)


def _transform(run: Run, name: str) -> OwnPreprocessing:
    setup = """\
import json

import numpy as np
import timm
import torch
from PIL import Image, ImageOps

net = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
"""
    activation = "sigmoid(logits)" if is_binary(run) else "softmax(logits, dim=1)"
    probabilities = f"""\
with torch.no_grad():
    logits = net(torch.stack([transform(picture) for picture in pictures]))
probabilities = torch.{activation}
"""
    picture = 'pictures = [ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")]\n'
    answer = picture + probabilities + "\n" + answer_code(run, name)
    return OwnPreprocessing(setup, probabilities, answer)
