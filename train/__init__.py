"""Training, evaluating and shipping the networks of :mod:`flax_resnet`."""

from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent  # of the packages, which lie side by side
