"""What Deep InfoMax maximizes: what a code tells of its image's map, whole or place by place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from captum_mi._checks import check_choice, check_positive
from captum_mi.estimators.critics import ConcatCritic, Critic, SeparableCritic
from captum_mi.estimators.local_bounds import (
    local_donsker_varadhan,
    local_info_nce,
    local_jensen_shannon,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BOUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "dv": local_donsker_varadhan,
    "jsd": local_jensen_shannon,
    "infonce": lambda scores: local_info_nce(scores).mean(),
}
CRITICS: dict[str, type[Critic]] = {"dot": SeparableCritic, "concat": ConcatCritic}


@dataclass(frozen=True)
class Mixture:
    """The weights of the three objectives, and how mutual information is bounded.

    Args:
        alpha: of the global objective, how much the code tells of the whole map.
        beta: of the local objective, how much it tells of a place, in the mean over places.
        gamma: of prior matching.
        bound: "dv", Donsker-Varadhan; "jsd", Jensen-Shannon; or "infonce".
        critic: "dot", the scalar product of two networks, or "concat", one network that reads both
            side by side; every place of every image of a batch is then read with every code, which
            takes time and memory of N² K ``units`` numbers.
        units: of each layer of a critic.

    Raises:
        ValueError: if a weight is negative, all are 0, or a name is unknown.

    Source: Hjelm et al., ICLR 2019, eq. 8; DIM(G) is (1, 0, 1), DIM(L) is (0, 1, 0.1).

    Example:
        >>> Mixture(alpha=0.5, beta=1, gamma=0.1, bound="jsd").name
        'DIM(0.5, 1, 0.1) jsd'
        >>> Mixture(1, 0, 1, bound="infonce").name, Mixture(0, 1, 0.1, critic="concat").name
        ('DIM(G) infonce', 'DIM(L) infonce concat')
    """

    alpha: float = 0.0
    beta: float = 1.0
    gamma: float = 0.1
    bound: str = "infonce"
    critic: str = "dot"
    units: int = 256

    def __post_init__(self) -> None:
        """Checks the arguments."""
        for name in ("alpha", "beta", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"`{name}` must be finite and not negative, got {getattr(self, name)}"
                )
        if not self.alpha + self.beta + self.gamma:
            raise ValueError("`alpha`, `beta` and `gamma` must not all be 0")
        check_choice("bound", self.bound, BOUNDS)
        check_choice("critic", self.critic, CRITICS)
        check_positive("units", self.units)

    @property
    def name(self) -> str:
        """What the paper calls it."""
        weights = (self.alpha, self.beta, self.gamma)
        known = {(1.0, 0.0, 1.0): "DIM(G)", (0.0, 1.0, 0.1): "DIM(L)"}
        given = f"DIM({', '.join(f'{weight:g}' for weight in weights)})"
        critic = "" if self.critic == "dot" else f" {self.critic}"
        return f"{known.get(weights, given)} {self.bound}{critic}"


class Information(nn.Module):
    """A lower bound on what codes tell of the places of their images, with its critic.

    Args:
        code_dim: D.
        place_dim: C.
        mixture: bound, critic and its units.

    Example:
        >>> objective = Information(64, 128, Mixture(bound="jsd"))
        >>> objective(torch.randn(9, 64), torch.randn(9, 49, 128)).item() < 2 * math.log(2)
        True
    """

    def __init__(self, code_dim: int, place_dim: int, mixture: Mixture) -> None:
        """Draws the critic's weights from torch's global generator."""
        super().__init__()
        self.critic = CRITICS[mixture.critic](code_dim, place_dim, mixture.units)
        self.bound = BOUNDS[mixture.bound]

    def scores(self, codes: Tensor, places: Tensor) -> Tensor:
        """Returns the scores, (N, N, K), of every code with every place of every image.

        Args:
            codes: (N, D).
            places: (N, K, C).
        """
        z, x = self.critic.embed_global(codes), self.critic.embed_local(places)
        crossed = self.critic.crossed(z, x.flatten(0, 1))
        return crossed.reshape(len(codes), *places.shape[:2])

    def forward(self, codes: Tensor, places: Tensor) -> Tensor:
        """Returns the bound, 0-d, nats, of codes, (N, D), and places, (N, K, C), N at least 2."""
        return self.bound(self.scores(codes, places))
