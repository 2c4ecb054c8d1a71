"""What there is to know of each method: one entry a method, and one way to call any of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from captum_mi._checks import check_choice

if TYPE_CHECKING:  # the command line's help shows this table: PyTorch and Captum take seconds
    from collections.abc import Callable, Mapping

    from captum.attr import Attribution, LayerAttribution
    from torch import Tensor, nn

STARTS = {"baselines", "layer_baselines", "prior"}
"""Options that say where a path starts, or where a bottleneck's noise lies."""

EARLY = (1, 0)
"""Hidden states, of the image and of the text, that are explained from an informed start: behind
the first block, and in front of it, where no token has read the words."""

GIVEN = frozenset({"self", "forward_func", "model", "layer", "inputs", "target"})
"""Parameters of constructors and of ``attribute`` that are no options: what is explained."""


class Place(Enum):
    """What a method explains on an image-text model, in words.

    ``explanation.layer_of`` finds the module that is meant.
    """

    HIDDEN_STATES = "hidden states {} (image) and {} (text)"
    IMAGE_HIDDEN_STATE = "hidden state {} of the image"
    FIRST_HIDDEN_STATES = "hidden states 0"
    ALL_BLOCKS = "the attention of all blocks"
    LAST_BLOCKS = "the attention of the last blocks"
    INPUTS = "the pixels and the words' embeddings"

    def words(self, hidden_states: tuple[int, int]) -> str:
        """Returns the place in words, given the hidden states asked for (image, text).

        Example:
            >>> Place.HIDDEN_STATES.words((3, 1))
            'hidden states 3 (image) and 1 (text)'
        """
        return self.value.format(*hidden_states)


@dataclass(frozen=True)
class Method:
    """A method's facts. Called with the model and a layer, it gives the Captum attribution.

    Attributes:
        name: short name.
        layer_class: where the class is that explains a layer, "module:class".
        place: what it explains on an image-text model.
        unit: what its numbers are: "cosine", signed parts of the score; "nats", which are never
            negative; "pointwise nats", which are signed; None, relevance without a unit.
        least_steps: the smallest ``n_steps`` that it can do with; None if it has no steps.
        input_class: where the class is that explains the inputs themselves; None if there is none.
        start: where its path starts, or its noise lies, on an image-text model: "zero", the zero
            latent or N(0, 1); "blank", the latent of an input that says nothing; "fitted", the
            layer's statistics over a data set; None for a method that leaves no choice.
        hidden_states: those of the image and of the text that it explains by default, if any are
            its place; None: three blocks before the end of each tower.
        needs_fit: whether it learns from data before it explains; what it explains is then chosen
            with ``fit``, and its constructor also takes the ``global_layer``.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> METHODS["nib"](model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    name: str
    layer_class: str
    place: Place
    unit: Literal["cosine", "nats", "pointwise nats"] | None
    least_steps: int | None = None
    input_class: str | None = None
    start: Literal["zero", "blank", "fitted"] | None = None
    hidden_states: tuple[int, int] | None = None
    needs_fit: bool = False

    @property
    def kind(self) -> type[LayerAttribution]:
        """The class that explains a layer."""
        found: type[LayerAttribution] = resolve_name(self.layer_class)
        return found

    @property
    def input_kind(self) -> type[Attribution] | None:
        """The class that explains the inputs themselves; None if there is none."""
        return None if self.input_class is None else resolve_name(self.input_class)

    def __call__(
        self, forward_func: Callable[..., Any], layer: nn.Module | list[nn.Module], **options: Any
    ) -> LayerAttribution:
        """Returns the attribution of a layer, or of each of a list of layers."""
        return self.kind(forward_func, layer, **options)

    def explaining(self, layer: object) -> type[Attribution]:
        """Returns the class that explains a layer, or the inputs if the layer is None."""
        return self.kind if layer is not None else self.input_kind or self.kind

    def takes(self, option: str) -> bool:
        """Returns True if the constructor or ``attribute`` takes the option."""
        return option in options_of(self.kind)

    def taken(self, **options: Any) -> dict[str, Any]:
        """Returns those of the options that the method takes."""
        return {name: value for name, value in options.items() if self.takes(name)}

    def check_steps(
        self, n_steps: int, argument: str = "`n_steps`", *, caller: str | None = None
    ) -> None:
        """Raises ValueError if the method cannot do with so few steps.

        Args:
            n_steps: the number of steps.
            argument: what the message calls it.
            caller: what the message calls the method; its short name by default.
        """
        if self.least_steps is not None and n_steps < self.least_steps:
            raise ValueError(
                f"{argument} must be at least {self.least_steps} for {caller or self.name}, got"
                f" {n_steps}"
            )


NIB = "captum_mi.attr:NarrowingIB"
IB = "captum_mi.attr:MultimodalIB"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        # Captum's quadrature has two points or more.
        Method("nib", NIB, Place.HIDDEN_STATES, "cosine", 2, start="blank", hidden_states=EARLY),
        Method("nib-zero", NIB, Place.HIDDEN_STATES, "cosine", 2, start="zero"),
        Method(
            "nib-mean", NIB, Place.HIDDEN_STATES, "cosine", 2, start="fitted", hidden_states=EARLY
        ),
        Method("m2ib", IB, Place.HIDDEN_STATES, "nats", 1, start="zero", hidden_states=EARLY),
        Method(
            "m2ib-prior", IB, Place.HIDDEN_STATES, "nats", 1, start="fitted", hidden_states=EARLY
        ),
        Method(
            "rise",
            "captum_mi.attr:LayerRISE",
            Place.INPUTS,
            "cosine",
            input_class="captum_mi.attr:RISE",
        ),
        Method("gradcam", "captum_mi.attr:TokenGradCam", Place.HIDDEN_STATES, None),
        Method("chefer", "captum_mi.attr:GenericAttention", Place.ALL_BLOCKS, None),
        Method("attention", "captum_mi.attr:AttentionSaliency", Place.LAST_BLOCKS, None),
        Method("mfaba", "captum_mi.attr:MFABA", Place.FIRST_HIDDEN_STATES, "cosine", least_steps=1),
        Method("fastig", "captum_mi.attr:FastIG", Place.HIDDEN_STATES, "cosine"),
        Method(
            "infonce",
            "captum_mi.attr:InfoNCEDecomposition",
            Place.IMAGE_HIDDEN_STATE,
            "pointwise nats",
            hidden_states=(2, 0),
            needs_fit=True,
        ),
    )
}
"""Short name -> the method's facts; ``METHODS["nib"](model, layer)`` is its attribution."""


def ready_methods() -> list[str]:
    """Returns the names of the methods that explain a model as it is, without ``fit``.

    Example:
        >>> set(METHODS) - set(ready_methods())
        {'infonce'}
    """
    return [name for name, method in METHODS.items() if not method.needs_fit]


def ready_method(name: str, argument: str = "method") -> Method:
    """Returns the entry of a method that explains a model as it is.

    Args:
        name: a name in ``METHODS``.
        argument: what the message calls it.

    Raises:
        ValueError: if there is no such method, or it must be fitted first.
    """
    known = METHODS.get(name)
    if known is not None and known.needs_fit:
        raise ValueError(
            f"`{argument}` {name} must be fitted before it explains: with captum-mi fit --method"
            f" {name}, for captum-mi explain, or with fit of captum_mi.{known.kind.__name__}, for"
            " its decompose"
        )
    return METHODS[check_choice(argument, name, ready_methods())]


def options_of(kind: type[Attribution]) -> list[str]:
    """Returns the names of the options of a class's constructor and of its ``attribute``.

    Example:
        >>> options_of(AttentionSaliency)
        ['device_ids', 'additional_forward_args']
    """
    names = [*_parameters(kind.__init__), *_parameters(kind.attribute)]
    return [name for name in dict.fromkeys(names) if name not in GIVEN]


def takes_layer(kind: type[Attribution]) -> bool:
    """Returns True if a class explains a layer."""
    return "layer" in _parameters(kind.__init__)


def call_attribute(
    kind: type[Attribution],
    forward_func: Callable[..., Any],
    inputs: Tensor,
    *,
    offered: Mapping[str, object],
    options: Mapping[str, object],
) -> tuple[Tensor, Tensor | None]:
    """Explains inputs with a class of this package or of Captum.

    Args:
        kind: the class.
        forward_func: the model.
        inputs: (B, ...).
        offered: the layer, the target and what else is known of the model and the inputs; handed
            over as far as the class takes it.
        options: what the caller asked for, of the constructor or of ``attribute``; comes before
            what is offered.

    Returns:
        the attribution, the first where a layer has several tensors, and the convergence delta,
        None unless ``return_convergence_delta`` is set.

    Raises:
        TypeError: if the class does not take one of the options.
    """
    known = options_of(kind)
    for name in options:
        if name not in known:
            raise TypeError(
                f"{kind.__name__} takes no argument {name!r}; it takes {', '.join(known)}"
            )
    given = {**offered, **options}
    setup = {name: given[name] for name in _parameters(kind.__init__) if name in given}
    arguments = {name: given[name] for name in _parameters(kind.attribute) if name in given}
    found = kind(forward_func, **setup).attribute(inputs, **arguments)
    attributions, delta = found if given.get("return_convergence_delta") else (found, None)
    first: Tensor = attributions[0] if isinstance(attributions, tuple) else attributions
    return first, delta


def _parameters(function: Callable[..., object]) -> list[str]:
    """Returns the names of a function's parameters, but for ``*args`` and ``**kwargs``."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind not in variable]
