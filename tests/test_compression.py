"""Compression: PCA against scikit-learn, a tiny autoencoder, and estimators behind both."""

import math

import numpy as np
import pytest
import torch
from sklearn import decomposition

from captum_mi._training import minimize, split
from captum_mi.datasets import AntiPCA, CorrelatedNormals, DiscreteLabels, GaussianBumps
from captum_mi.estimators import (
    PCA,
    Autoencoder,
    Compressed,
    KozachenkoLeonenko,
    WeightedKozachenkoLeonenko,
    autoencoder,
)


@pytest.fixture(scope="module")
def bumps():
    return GaussianBumps(0.0, size=8).sample(1500, seed=9)[0]


@pytest.fixture(scope="module")
def trained(bumps):
    return Autoencoder(2, steps=300, batch_size=128).fit(bumps)


@pytest.mark.parametrize("shape", [(300, 7), (300, 6, 5), (10, 40)])
def test_pca_is_scikit_learns(shape):
    x = np.random.default_rng(0).standard_normal(shape) @ np.diag(np.arange(1.0, shape[-1] + 1))
    reference = decomposition.PCA(3, svd_solver="full").fit(x.reshape(shape[0], -1))
    pca = PCA(3).fit(x)
    assert np.allclose(pca.mean, reference.mean_)
    assert np.allclose(pca.variances[:3], reference.explained_variance_)
    assert float(pca.variances.sum()) == pytest.approx(np.var(x, axis=0, ddof=1).sum())
    signs = np.sign((pca.components.numpy() * reference.components_).sum(1))
    assert np.allclose(pca.components, signs[:, None] * reference.components_)
    assert (pca.components.numpy()[range(3), abs(pca.components.numpy()).argmax(1)] > 0).all()
    fresh = np.random.default_rng(1).standard_normal(shape)
    expected = signs * reference.transform(fresh.reshape(shape[0], -1))
    assert np.allclose(pca.transform(fresh), expected)
    assert np.allclose(PCA(3).fit(torch.from_numpy(x)).transform(torch.from_numpy(fresh)), expected)


def test_pca_codes_are_float64_whatever_comes_in():
    x = torch.randn(50, 4)
    assert PCA(2).fit(x).transform(x.half()).dtype == torch.float64
    assert PCA(2).fit(x).transform(x.numpy()).shape == (50, 2)


def linear_fit(codes, parameters):
    """Share of the parameters' variance that a quadratic function of the codes explains."""
    first, second = np.asarray(codes).T
    powers = [first**i * second**j for i in range(4) for j in range(4 - i)]
    design = np.stack(powers, axis=1)
    left = parameters - design @ np.linalg.lstsq(design, parameters, rcond=None)[0]
    return 1 - left.var(axis=0) / parameters.var(axis=0)


def test_autoencoder_finds_the_place_of_a_bump(trained):
    sampler = GaussianBumps(0.0, size=8)
    images, places = sampler.sample(500)[0], sampler.parameters.sample(500)[0]
    codes = trained.transform(images)
    assert codes.shape == (500, 2)
    assert codes.dtype == torch.float64
    assert linear_fit(codes, places).min() > 0.9
    redrawn = trained.reconstruct(images)
    assert redrawn.shape == (500, 8, 8)
    assert abs(redrawn.numpy() - images).mean() < 0.3 * abs(images - images.mean(0)).mean()
    steps, errors = zip(*trained.history, strict=True)
    assert steps == (*range(13, 300, 13), 300)
    assert errors[-1] < 0.5 * errors[0]


def test_autoencoder_of_vectors_finds_what_pca_misses():
    fresh = AntiPCA(0.0).sample(3000, seed=9)[0]
    x, y = AntiPCA(2.0).sample(2000)
    errors = {}
    for compressor in (PCA(2), Autoencoder(2, steps=800)):
        compressor.fit(fresh)
        estimator = Compressed(KozachenkoLeonenko(), x=compressor, y=compressor)
        errors[type(compressor)] = abs(estimator.estimate(x, y).value - 2)
    assert errors[PCA] > 1
    assert errors[Autoencoder] < 0.5


@pytest.mark.parametrize("shape", [(40, 5), (40, 6, 9), (40, 3, 7, 5), (40, 1, 1, 4), (40, 2, 2)])
def test_autoencoder_takes_every_shape(shape):
    x = 5 * torch.randn(shape) - 100
    autoencoder = Autoencoder(3, steps=3, batch_size=16).fit(x)
    assert autoencoder.transform(x).shape == (40, 3)
    assert autoencoder.reconstruct(x).shape == shape
    assert autoencoder.reconstruct(x).min() >= x.min() - 30


def test_autoencoder_is_reproducible_and_leaves_the_global_state(bumps):
    state = torch.get_rng_state()
    first, again, other = (
        Autoencoder(2, steps=20, batch_size=64, seed=seed).fit(bumps).transform(bumps)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_refit_starts_afresh(bumps):
    autoencoder = Autoencoder(2, steps=10)
    first, history = autoencoder.fit(bumps).transform(bumps), autoencoder.history
    assert torch.equal(autoencoder.fit(bumps).transform(bumps), first)
    assert autoencoder.history == history


def test_autoencoder_works_for_callers_under_no_grad(bumps, trained):
    with torch.no_grad():
        codes = Autoencoder(2, steps=10).fit(bumps).transform(bumps)
    assert torch.equal(codes, Autoencoder(2, steps=10).fit(bumps).transform(bumps))
    assert not trained.transform(bumps).requires_grad


def test_autoencoder_stops_early():
    noise = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    autoencoder = Autoencoder(2, steps=3000, patience=2).fit(noise)
    steps, errors = zip(*autoencoder.history, strict=True)
    assert steps[-1] < 3000
    best = int(np.argmin(errors))
    assert steps[-1] - steps[best] == 2 * (3000 // 24)


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_zero(monkeypatch):
    rates = []

    def watched(loss, network, optimizer, steps, **options):
        def step_loss(step):
            rates.append(optimizer.param_groups[0]["lr"])
            return loss(step)

        return minimize(step_loss, network, optimizer, steps, **options)

    monkeypatch.setattr(autoencoder, "minimize", watched)
    Autoencoder(2, steps=100, learning_rate=0.02).fit(torch.randn(30, 4))
    assert rates[:5] == pytest.approx([0.002 * step for step in range(1, 6)])
    assert rates[50] == pytest.approx(0.01)
    assert 8 < int(np.argmax(rates)) < 12
    assert rates[-1] < 1e-5


def test_the_error_is_that_of_samples_held_out(monkeypatch):
    drawn = []

    def noted(*arguments):
        drawn.append(split(*arguments))
        return drawn[-1]

    monkeypatch.setattr(autoencoder, "split", noted)
    x = torch.randn(95, 4, generator=torch.Generator().manual_seed(0)).double()
    trained = Autoencoder(2, steps=60).fit(x)
    held_out = x[drawn[0][1]]
    assert len(held_out) == 10
    errors = (trained.reconstruct(held_out) - held_out).abs() / (x.amax(0) - x.amin(0))
    assert min(error for _, error in trained.history) == pytest.approx(errors.mean().item())


def test_saved_weights_give_the_same_codes(bumps, trained, tmp_path):
    path = tmp_path / "autoencoder.safetensors"
    trained.save(path)
    state = torch.get_rng_state()
    loaded = Autoencoder.load(path)
    assert torch.equal(state, torch.get_rng_state())
    assert repr(loaded) == repr(trained)
    assert torch.equal(loaded.transform(bumps), trained.transform(bumps))
    assert torch.equal(loaded.reconstruct(bumps), trained.reconstruct(bumps))


def test_compressed_is_the_estimator_of_the_codes(bumps, trained):
    x, y = GaussianBumps(3.0, size=8).sample(800)
    estimator = KozachenkoLeonenko(3)
    expected = estimator.estimate(trained.transform(x), trained.transform(y))
    compressed = Compressed(estimator, x=trained, y=trained)
    found = compressed.estimate(x, y)
    assert (found.value, found.std_error) == (expected.value, expected.std_error)
    assert found.estimator == repr(compressed)
    half = estimator.estimate(PCA(2).fit(x).transform(x), y.mean(axis=(1, 2)))
    found = Compressed(estimator, x=PCA(2)).estimate(x, y.mean(axis=(1, 2)))
    assert (found.value, found.std_error) == (half.value, half.std_error)


def test_what_codes_keep_is_said():
    """Variance .9, .1 and information the other way round."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2)) * [3, 1]
    y = np.column_stack([x[:, 1], 0.5 * rng.standard_normal((4000, 3))])
    compressed = Compressed(KozachenkoLeonenko(3), x=PCA(1), y=PCA(3))
    found = compressed.estimate(x, y + 0.1 * rng.standard_normal((4000, 4)))
    assert found.value == pytest.approx(0, abs=4 * found.std_error)
    shares = [float(note.split(" keeps ")[1].split(" %")[0]) for note in found.notes]
    assert [note.split(" keeps")[0] for note in found.notes] == ["PCA(n=1) of x", "PCA(n=3) of y"]
    assert shares == pytest.approx([90, 85], abs=2)
    assert found.notes[0].endswith(" % of the variance; what it leaves out may hold information.")
    half = Compressed(KozachenkoLeonenko(3), x=PCA(1)).estimate_discrete(x, x[:, 1] > 0)
    assert half.notes == found.notes[:1]
    assert half.estimator == repr(Compressed(KozachenkoLeonenko(3), x=PCA(1)))


def test_codes_without_information_are_no_silent_result():
    """What the command line gives for many columns and no more options."""
    x, y = GaussianBumps(2.0).sample(1000)
    compressed = Compressed(WeightedKozachenkoLeonenko(), x=PCA(4), y=PCA(4))
    with pytest.warns(UserWarning, match="far below 0, which no mutual information is"):
        found = compressed.estimate(x, y)
    assert len(found.notes) == 2


def test_pca_keeps_the_variance_of_its_codes():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).double()
    pca = PCA(2).fit(x)
    share = float(pca.transform(x).var(0).sum() / x.var(0).sum())
    assert pca.kept == pytest.approx(share)
    assert PCA(2).partial_fit(x[:90]).partial_fit(x[90:]).kept == pytest.approx(share)
    assert PCA(6).fit(x).kept == pytest.approx(1)
    assert PCA(2).partial_fit(torch.ones(5, 3)).kept == 0


def test_autoencoder_keeps_what_it_can_redraw(bumps, trained, tmp_path):
    fresh = torch.from_numpy(GaussianBumps(0.0, size=8).sample(1500, seed=3)[0])
    errors = (trained.reconstruct(fresh) - fresh).square().sum()
    share = float(1 - errors / (fresh - fresh.mean(0)).square().sum())
    assert share > 0.8
    assert trained.kept == pytest.approx(share, abs=0.05)
    trained.save(tmp_path / "autoencoder.safetensors")
    assert Autoencoder.load(tmp_path / "autoencoder.safetensors").kept == trained.kept
    assert Autoencoder(1, steps=1).fit(torch.randn(40, 9)).kept == 0


def test_compressed_fits_a_copy(bumps):
    pca = PCA(2)
    x, y = GaussianBumps(1.0, size=8).sample(300)
    Compressed(KozachenkoLeonenko(), x=pca, y=pca).estimate(x, y)
    assert not pca.fitted
    fitted = PCA(2).fit(bumps)
    components = fitted.components.clone()
    Compressed(KozachenkoLeonenko(), x=fitted, y=fitted).estimate(x, y)
    assert torch.equal(fitted.components, components)


def test_compressed_with_labels_compresses_x():
    x, labels = DiscreteLabels(4, dim_x=2).sample(2000)
    wide = np.hstack([x, 0.001 * np.random.default_rng(0).standard_normal((2000, 8))])
    estimator = Compressed(KozachenkoLeonenko(), x=PCA(2))
    assert estimator.estimate_discrete(wide, labels).value == pytest.approx(math.log(4), abs=0.15)


def test_compression_never_adds_information():
    x, y = CorrelatedNormals(2.0, 3, 3).sample(4000)
    wide = x * np.array([3.0, 2.0, 1.0])
    estimate = Compressed(KozachenkoLeonenko(5), x=PCA(2)).estimate(wide, y)
    assert estimate.value == pytest.approx(4 / 3, abs=4 * estimate.std_error)


def test_repr_rebuilds():
    estimator = Compressed(KozachenkoLeonenko(3), x=PCA(2), y=Autoencoder(4, steps=7))
    assert repr(eval(repr(estimator))) == repr(estimator)
    assert "steps=7" in repr(estimator)


@pytest.mark.parametrize("compressor", [PCA(2), Autoencoder(2)])
def test_unfitted(compressor):
    with pytest.raises(RuntimeError, match=r"\(.*\) is not fitted; call fit\(x\) first"):
        compressor.transform(torch.zeros(5, 3))
    with pytest.raises(RuntimeError, match="is not fitted"):
        _ = compressor.kept
    with pytest.raises(RuntimeError, match="is not fitted"):
        Autoencoder(2).save("unused")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PCA(0), "`n` must be at least 1, got 0"),
        (lambda: PCA(5).fit(torch.randn(9, 4)), r"PCA\(5\) needs at least 5 samples and 5 feat"),
        (lambda: PCA(1).fit(torch.randn(9)), r"`x` must be \(N, d\) or \(N, ...\), got shape \(9,"),
        (lambda: PCA(1).fit([[1.0, math.nan]] * 3), "`x` must be finite"),
        (
            lambda: PCA(1).fit(torch.randn(9, 4)).transform(torch.randn(9, 3)),
            r"`x` must be \(N, 4\) as in `fit`, got shape \(9, 3\)",
        ),
        (lambda: Autoencoder(2, steps=0), "`steps` must be at least 1, got 0"),
        (lambda: Autoencoder(2, code_noise=-1), "`code_noise` must not be negative, got -1"),
        (lambda: Autoencoder(2, learning_rate=0), "`learning_rate` must be positive, got 0"),
        (lambda: Autoencoder(2).fit(torch.randn(19, 4)), "at least 20 samples to train on, got 19"),
        (lambda: Autoencoder(2).fit(torch.randn(30, 1, 1, 1, 4)), "got 5 axes"),
        (
            lambda: Autoencoder(2, steps=40, learning_rate=1e30).fit(torch.randn(30, 4)),
            r"diverged at `learning_rate` 1e\+30: the loss of step \d+ is nan; choose a smaller",
        ),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_small_components_of_single_precision_are_no_noise():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((60_000, 4)) * [1, 2e-3, 2e-3, 2e-3]).astype(np.float32)
    deviations = PCA(4).fit(x).variances.sqrt().numpy()
    np.testing.assert_allclose(deviations, [1, 2e-3, 2e-3, 2e-3], rtol=0.02)


def test_autoencoder_sees_samples_far_from_zero():
    x = np.random.default_rng(0).standard_normal((500, 3))
    near, far = (Autoencoder(2, steps=20).fit(part).transform(part) for part in (x, x + 1e8))
    torch.testing.assert_close(far, near, atol=1e-4, rtol=0)
    redrawn = Autoencoder(2, steps=20).fit(x + 1e8).reconstruct(x + 1e8)
    assert redrawn.dtype == torch.float64
    assert (redrawn - 1e8).abs().max() < 5
