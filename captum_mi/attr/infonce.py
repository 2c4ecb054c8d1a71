"""InfoNCE decomposition: what each place shares with a representation, and what the task needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._checks import check_choice, check_positive, check_positive_number
from captum_mi._state_file import read_state, write_state
from captum_mi._training import Progress
from captum_mi.attr._batches import Batch
from captum_mi.attr._captum import TargetType
from captum_mi.attr._infonce_training import LogLikelihood, log_softmax_likelihood, train
from captum_mi.attr._local_information import CRITICS, MASKS, Networks
from captum_mi.attr._two_layers import TwoLayers
from captum_mi.attr.decomposition import Decomposition, Information
from captum_mi.attr.layer_names import module_of, name_of
from captum_mi.attr.places import Places

Component = Literal["total", "decision", "redundant"]
SETTINGS = ("critic", "mask", "hidden", "beta", "place_aware", "scores_at_once")
FACTS = ("settings", "layers", "places")
NOISES = 4
"""Draws of the mask's noise that a decision map is the mean of."""


class InfoNCEDecomposition(LayerAttribution):
    r"""How many nats of a representation come from each place, and which of them the task needs.

    For a global representation Z (the output of ``global_layer``) and the places X_k of an earlier
    layer, a critic f is trained to tell the places of the image of Z from those of others,

    .. math:: \text{total} = f(z, x_k, k) - \log \frac{e^{f(z, x_k, k)} + \sum_m e^{f(z, x_m, k_m)}}
              {1 + M}

    Its mean over images and places is at most the mean over places of I(Z; X_k); the better the
    critic, the nearer its mean at each place to I(Z; X_k), from either side.

    A mask lambda, which sees each place by itself, is trained to keep the task's log-likelihood of
    the model behind :math:`X'_k = \lambda_k X_k + (1 - \lambda_k) \epsilon_k` while beta times its
    mean is small; :math:`\epsilon_k` is noise of the layer's mean and deviation. A second critic
    gives the part that the task needs, ``decision``, from the same Z and X'. The rest is
    ``redundant``.

    The model stays as it is; critics and mask are trained by :meth:`fit` and can be saved. M places
    of held-out images are kept, so that an image's maps do not depend on the others of its batch.
    What has been fitted explains the representation, for the task it was fitted to: there is no
    target to choose afterwards.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: of maps, (B, C, h, w), or tokens, (B, T, D); tokens before the patches of an image
            (CLS, registers) are no places, and have their mean behind the mask. The larger K and C,
            the more images it takes.
        global_layer: a later layer; what it returns, (B, ...), is Z.
        device_ids: accepted as by Captum's layer methods, and not needed.
        critic: "separable", the scalar product of two networks of two layers, or "concat", one of
            two layers that reads z and x side by side.
        mask: "pointwise", or "conv3x3", the paper's. With the second, X'_k can carry what its
            neighbors hold and exceed I(Z; X_k): only with the first is the redundant information
            never negative (in the mean, and up to the critics' errors).
        hidden: units of each layer of critics and mask.
        beta: price of the mask's mean, in nats of log-likelihood.
        place_aware: whether critics and mask know which place they see. A critic that does not
            bounds I(Z; X_K) of a place K drawn at random, which is at most the mean over places
            of I(Z; X_k): where one place of many tells of Z, it finds almost nothing. "conv3x3"
            never knows.
        log_likelihood: the task: takes the model's output and what the loader gives as labels (if
            it gives none, the largest of each row of an output (B, C), else None), and returns
            log-likelihoods, (B,). None takes the model's own ``log_likelihood`` if it has one, else
            the log-softmax at the labels.
        scores_at_once: how many numbers the critics' scores may take in memory at a time.

    Attributes:
        history: what :meth:`fit` returned.

    Raises:
        TypeError: if ``layer`` or ``global_layer`` is no module.
        ValueError: if an argument is not as said, or both layers are the same.

    Source: "Explaining Representation by Mutual Information", eq. 2 to 8, made well-posed: scores
    of other images' places as negatives, noise behind the mask, the mean instead of the sum of
    lambda, no gradient from the bound into the mask. Its alpha is gone, for critics and mask share
    no parameter.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
        >>> method = InfoNCEDecomposition(model.eval(), model[0], model[3], hidden=16)
        >>> *batches, last = [torch.randn(8, 3, 16, 16) for _ in range(5)]
        >>> len(method.fit(batches, epochs=2, validation=0.25))
        2
        >>> method.attribute(last, component="decision").shape
        torch.Size([8, 1, 4, 4])
        >>> maps = method.decompose(last)
        >>> bool((maps.total <= maps.cap).all()), maps.mask.shape
        (True, torch.Size([8, 1, 4, 4]))
        >>> method.information([last]).total.n_samples
        8
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module,
        global_layer: nn.Module,
        device_ids: list[int] | None = None,
        *,
        critic: Literal["separable", "concat"] = "separable",
        mask: Literal["pointwise", "conv3x3"] = "pointwise",
        hidden: int = 256,
        beta: float = 0.5,
        place_aware: bool = True,
        log_likelihood: Callable[[Tensor, Any], Tensor] | None = None,
        scores_at_once: int = 2**24,
    ) -> None:
        """Stores the model and the layers; nothing is hooked before ``fit``."""
        for name, module in (("layer", layer), ("global_layer", global_layer)):
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"`{name}` must be a module, got {type(module).__name__}; take one by its name"
                    " with model.get_submodule(name)"
                )
        if layer is global_layer:
            raise ValueError("`global_layer` must be a later layer than `layer`, got the same")
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        self.global_layer = global_layer
        self.critic = check_choice("critic", critic, CRITICS)
        self.mask = check_choice("mask", mask, MASKS)
        self.hidden = check_positive("hidden", hidden)
        self.beta = check_positive_number("beta", beta)
        self.place_aware = place_aware
        self.log_likelihood = log_likelihood
        self.scores_at_once = check_positive("scores_at_once", scores_at_once)
        self.history: list[Progress] = []
        self._networks: Networks | None = None

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "InfoNCE Decomposition"

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: attributions are nats, not the layer's values times weights."""
        return False

    def fit(
        self,
        loader: Iterable[object],
        epochs: int = 20,
        *,
        validation: float | Iterable[object] = 0.1,
        learning_rate: float = 1e-3,
        patience: int | None = None,
        n_negatives: int = 1024,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> list[Progress]:
        """Trains critics and mask; the model, in evaluation mode, stays as it is.

        Args:
            loader: batches: inputs (B, ...), pairs of inputs and labels, or mappings of one input
                and ``labels``. It is gone through ``epochs`` + 1 times.
            epochs: at most.
            validation: the share of the loader's samples that is held out, or a loader of samples
                to hold out, in no order of classes: the first of them give the negatives. The state
                of the best epoch on them is kept.
            learning_rate: of Adam at the start; falls to zero along half a cosine.
            patience: epochs in a row without a better one before training ends; None never ends it.
            n_negatives: about how many places of held-out images are kept as negatives, M, the same
                number of each place; their number caps what can be measured at log(1 + M) nats.
            seed: draws weights, noise, and which samples a share holds out; a loader that stays
                whole draws its batches itself.
            device: where the batches are brought to; None: where the model's weights are, or the
                CPU if a function shows none.

        Returns:
            one entry for each epoch; its error is the objective on held-out images, in nats: beta
            mean(lambda) - log-likelihood - both bounds.

        Warns:
            UserWarning: if the model gives the labels less than guessing would.

        Raises:
            RuntimeError: if the model is in training mode.
            TypeError: if the loader gives something else, or cannot be divided.
            ValueError: if a layer has no places, does not fire once or holds a NaN, there are too
                few images or an argument is not as said, or training diverges.
        """
        check_positive("epochs", epochs)
        check_positive("n_negatives", n_negatives)
        check_positive_number("learning_rate", learning_rate)
        if patience is not None:
            check_positive("patience", patience)
        self._networks, self.history = train(
            self._layers,
            lambda latent, inputs: Places.of(latent, self.layer, self.forward_func, [inputs]),
            self._build,
            self._task,
            loader,
            validation,
            epochs=epochs,
            beta=self.beta,
            learning_rate=learning_rate,
            patience=patience,
            n_negatives=n_negatives,
            seed=seed,
            device=torch.device(device or self._layers.device or "cpu"),
        )
        return self.history

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        component: Component = "total",
    ) -> Tensor:
        """Returns one of the maps of :meth:`decompose`.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: accepted as by Captum's methods; the task was chosen when this was fitted.
            additional_forward_args: further arguments of ``forward_func``.
            component: "total", "decision" or "redundant".

        Returns:
            (B, 1, h, w), or (B, T, 1) on token layers; pointwise nats, signed.

        Raises:
            RuntimeError: if nothing is fitted, or the model is in training mode.
            ValueError: if a layer has another shape than it was fitted on, or holds a NaN.
        """
        check_choice("component", component, ("total", "decision", "redundant"))
        found: Tensor = getattr(self.decompose(inputs, additional_forward_args), component)
        return found

    @torch.no_grad()
    def decompose(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: object = None
    ) -> Decomposition:
        """Returns all maps of images, from one pass of the model that ends at ``global_layer``.

        Rows do not influence each other, and the same inputs give the same maps: the decision is
        the mean over a few fixed draws of the mask's noise.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            additional_forward_args: further arguments of ``forward_func``.

        Raises:
            RuntimeError: if nothing is fitted, or the model is in training mode.
            ValueError: if a layer has another shape than it was fitted on, or holds a NaN.
        """
        places = self._ready().places
        latent, z = self._layers.values(inputs, additional_forward_args)
        draws = torch.randn(
            (NOISES, 1, places.count, places.channels), generator=torch.Generator().manual_seed(0)
        )
        return self._decomposed(latent, z, draws)

    @torch.no_grad()
    def information(self, loader: Iterable[object], *, seed: int = 0) -> Information:
        """Returns the means over images, which should be none of those trained on.

        Args:
            loader: batches as for :meth:`fit`, two images at least; labels are ignored.
            seed: of the mask's noise, which is drawn for each image anew.

        Raises:
            RuntimeError: if nothing is fitted, or the model is in training mode.
            ValueError: if there are fewer than two images, a layer has another shape than it was
                fitted on, or holds a NaN.
        """
        networks = self._ready()
        places, device = networks.places, self._layers.device or networks.z_mean.device
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for given in tqdm(loader, desc="information", leave=False, delay=2):
            inputs = Batch.of(given, device).inputs
            latent, z = self._layers.values(inputs)
            shape = (NOISES, len(inputs), places.count, places.channels)
            parts.append(self._decomposed(latent, z, torch.randn(shape, generator=generator)))
        if sum(len(part.total) for part in parts) < 2:
            raise ValueError("`loader` must give at least two images for a standard error")
        total, decision, mask = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("total", "decision", "mask")
        )
        return Information(Decomposition(total, decision, mask, parts[0].cap), places.prefix)

    def save(self, path: str | Path) -> None:
        """Writes what was fitted, with the layers' names, as safetensors; not the model.

        Raises:
            RuntimeError: if nothing is fitted.
        """
        networks = self._ready()
        layers = [name_of(self.forward_func, each) for each in (self.layer, self.global_layer)]
        settings = {name: getattr(self, name) for name in SETTINGS}
        places = networks.places
        shape = places.shape, places.axis, places.prefix
        write_state(path, networks, {"settings": settings, "layers": layers, "places": shape})

    @classmethod
    def load(
        cls,
        path: str | Path,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | None = None,
        global_layer: nn.Module | None = None,
    ) -> InfoNCEDecomposition:
        """Reads what :meth:`save` wrote: fitted, where the model is.

        Args:
            path: the file.
            forward_func: the model it was fitted on.
            layer: None finds it in ``forward_func`` by its name, which is in the file.
            global_layer: likewise.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else, or the model has no layers of these names.
        """
        state, facts = read_state(path, FACTS, "fitted decomposition")
        local, whole = (
            module_of(forward_func, name) if given is None else given
            for given, name in zip((layer, global_layer), facts["layers"], strict=True)
        )
        loaded = cls(forward_func, local, whole, **facts["settings"])
        shape, axis, prefix = facts["places"]
        places = Places(tuple(shape), axis, prefix)
        with torch.random.fork_rng(devices=[]):
            networks = loaded._build(places, len(state["z_mean"]), len(state["total.negatives"]))
        networks.load_state_dict(state)
        networks.to(loaded._layers.device or "cpu").requires_grad_(requires_grad=False).eval()
        loaded._networks = networks
        return loaded

    @property
    def _layers(self) -> TwoLayers:
        return TwoLayers(self.forward_func, self.layer, self.global_layer)

    @property
    def _task(self) -> LogLikelihood:
        owner = getattr(self.forward_func, "__self__", self.forward_func)
        own = getattr(owner, "log_likelihood", log_softmax_likelihood)
        return self.log_likelihood or own

    def _build(self, places: Places, z_dim: int, n_negatives: int = 0) -> Networks:
        return Networks(
            places,
            z_dim,
            critic=self.critic,
            mask=self.mask,
            hidden=self.hidden,
            place_aware=self.place_aware,
            scores_at_once=self.scores_at_once,
            n_negatives=n_negatives,
        )

    def _ready(self) -> Networks:
        if self._networks is None:
            raise RuntimeError(
                f"this {type(self).__name__} is not fitted; call fit(loader) first, or load a file"
            )
        return self._networks

    def _decomposed(self, latent: Tensor, z: Tensor, draws: Tensor) -> Decomposition:
        """Returns the maps of a layer's value and Z under draws of noise, (n, 1 or B, K, C)."""
        networks = self._ready().to(latent.device)
        x, z = networks.read(latent, z)
        masks = networks.masks(x)
        decisions = [
            networks.decision(z, networks.standardized(networks.masked(x, masks, noise)))
            for noise in draws.to(x)
        ]
        total, decision = (
            networks.total(z, networks.standardized(x)),
            torch.stack(decisions).mean(0),
        )
        of = networks.places.map
        return Decomposition(of(total), of(decision), of(masks), networks.total.cap)
