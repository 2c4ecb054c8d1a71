"""The paper's experiment: a classifier of images whose plane is recorded while it trains."""

from captum_mi.infoplane.classifier.checkpoints import find_checkpoints, load_each
from captum_mi.infoplane.classifier.data import Images, read_images
from captum_mi.infoplane.classifier.follow import accuracy, follow
from captum_mi.infoplane.classifier.network import Classifier
from captum_mi.infoplane.classifier.summary import describe, summarize
from captum_mi.infoplane.classifier.training import Training

__all__ = [
    "Classifier",
    "Images",
    "Training",
    "accuracy",
    "describe",
    "find_checkpoints",
    "follow",
    "load_each",
    "read_images",
    "summarize",
]
