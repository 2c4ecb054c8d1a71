"""Probes: how well the classes can be told from frozen representations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_mi.infomax.encoders import evaluating
from captum_mi.infomax.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = 200
DROPOUT = 0.1


class Classifier(Protocol):
    """What a probe does, as scikit-learn's classifiers do it."""

    def fit(self, features: Tensor, labels: Tensor) -> Classifier:
        """Learns from features, (N, D), and labels, (N,)."""

    def score(self, features: Tensor, labels: Tensor) -> float:
        """Returns the share of features that it classifies rightly."""


class NetworkProbe:
    """A classifier of 200 hidden units, with batch normalization, ReLU and dropout of 0.1.

    Features are brought to mean 0 and deviation 1 of those fitted on. It has the methods of
    scikit-learn's classifiers.

    Args:
        training: how it is trained.

    Source: Hjelm et al., ICLR 2019, section 4.2.

    Example:
        >>> features, labels = torch.randn(400, 2), torch.arange(400) % 2
        >>> features[labels == 1] += 6
        >>> NetworkProbe(Training(epochs=5)).fit(features, labels).score(features, labels)
        1.0
    """

    def __init__(self, training: Training | None = None) -> None:
        """Stores the argument."""
        self.training = training or Training(epochs=20, learning_rate=3e-3)

    def fit(self, features: Tensor, labels: Tensor) -> NetworkProbe:
        """Trains the network on features, (N, D), and labels, (N,), integers from 0."""
        features = torch.as_tensor(features).float()
        labels = torch.as_tensor(labels)
        self._mean, self._deviation = features.mean(0), features.std(0).clamp_min(1e-6)
        with self.training.seeded(features.device):
            self._network = nn.Sequential(
                nn.Linear(features.shape[1], UNITS),
                nn.BatchNorm1d(UNITS),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
                nn.Linear(UNITS, int(labels.max()) + 1),
            ).to(features.device)
        self.training.run(
            lambda rows: cross_entropy(self._scores(features[rows]), labels[rows]),
            self._network,
            lambda generator: iter(self.training.rows(len(features), generator)),
            len(features) // min(self.training.batch_size, len(features)),
            "probe",
        )
        return self

    def predict(self, features: Tensor) -> Tensor:
        """Returns the classes, (N,), of features, (N, D)."""
        with evaluating(self._network):
            return self._scores(torch.as_tensor(features).float()).argmax(1)

    def score(self, features: Tensor, labels: Tensor) -> float:
        """Returns the share classified rightly of features, (N, D), with labels, (N,)."""
        return float((self.predict(features) == torch.as_tensor(labels)).float().mean())

    def _scores(self, features: Tensor) -> Tensor:
        found: Tensor = self._network((features - self._mean) / self._deviation)
        return found


def _linear(seed: int) -> Classifier:
    from sklearn.linear_model import LogisticRegression

    return cast("Classifier", LogisticRegression(max_iter=200, random_state=seed))


def _support_vector(seed: int) -> Classifier:
    from sklearn.linear_model import SGDClassifier

    # Solvers that go on to the optimum take minutes for the thousands of features of a map.
    machine = SGDClassifier(
        loss="hinge", alpha=1e-3, max_iter=20, tol=None, average=True, random_state=seed
    )
    return cast("Classifier", machine)


PROBES: dict[str, Callable[[int], Classifier]] = {
    "linear": _linear,
    "svm": _support_vector,
    "network": lambda seed: NetworkProbe(Training(epochs=20, learning_rate=3e-3, seed=seed)),
}
"""By name, what returns the classifier of a seed."""


def probe(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, seed: int = 0
) -> dict[str, float]:
    """Returns how well classifiers of frozen representations do on others.

    The features are standardized by those trained on. "linear" is logistic regression and "svm" a
    linear support-vector machine, by 20 passes of averaged stochastic gradient descent, both
    scikit-learn's; "network" is :class:`NetworkProbe`.

    Args:
        features: (N, D), to train on.
        labels: (N,), integers from 0.
        test_features: (M, D).
        test_labels: (M,).
        seed: of the classifiers.

    Returns:
        by name of the probe the share of test features classified rightly.

    Example:
        >>> features, labels = torch.randn(400, 2), torch.arange(400) % 2
        >>> features[labels == 1] += 9
        >>> probe(features[:300], labels[:300], features[300:], labels[300:])
        {'linear': 1.0, 'svm': 1.0, 'network': 1.0}
    """
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    train, test = ((part - mean) / deviation for part in (features, test_features))
    return {
        name: float(build(seed).fit(train, labels).score(test, test_labels))
        for name, build in PROBES.items()
    }
