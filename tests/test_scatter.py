"""Principal components of samples that come in batches, against those of all at once."""

import numpy as np
import pytest
import torch
from sklearn import decomposition

from captum_mi.estimators import PCA
from captum_mi.estimators.compression import SPARE


def decaying(n_samples, n_features, rate=0.8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, n_samples, n_features, generator=generator, dtype=torch.float64)
    mixing = torch.linalg.qr(draws[1][:n_features])[0]
    return (draws[0] * rate ** torch.arange(n_features)) @ mixing + 3


def streamed(n, samples, batch_size):
    pca = PCA(n)
    for batch in torch.split(samples, batch_size):
        pca.partial_fit(batch)
    return pca


@pytest.mark.parametrize(("n_features", "batch_size"), [(3, 50), (17, 50), (17, 7), (20, 1)])
def test_few_features_give_the_components_of_all_samples(n_features, batch_size):
    x = decaying(403, n_features)
    whole, parts = PCA(3).fit(x), streamed(3, x, batch_size)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.components, whole.components, atol=1e-6, rtol=0)
    torch.testing.assert_close(parts.variances[:3], whole.variances[:3])
    torch.testing.assert_close(parts.transform(x), whole.transform(x), atol=1e-6, rtol=0)
    assert parts.total_variance == pytest.approx(whole.total_variance)


def test_many_features_are_scikit_learns_incremental_ones():
    x = decaying(600, 200, rate=0.97)
    parts = streamed(4, x, 100)
    reference = decomposition.IncrementalPCA(4 + SPARE, batch_size=100).fit(x.numpy())
    assert np.allclose(parts.mean, reference.mean_)
    assert np.allclose(parts.variances, reference.explained_variance_)
    signs = np.sign((parts.components.numpy() * reference.components_[:4]).sum(1))
    assert np.allclose(parts.components, signs[:, None] * reference.components_[:4], atol=1e-6)
    assert parts.total_variance == pytest.approx(float(x.var(0).sum()))
    assert (parts.components.gather(1, parts.components.abs().argmax(1, keepdim=True)) > 0).all()


def test_many_features_keep_nearly_what_all_samples_at_once_keep():
    x = decaying(3000, 300, rate=0.97)
    kept = [pca.transform(x).var(0).sum() for pca in (streamed(4, x, 500), PCA(4).fit(x))]
    assert kept[0] == pytest.approx(float(kept[1]), rel=3e-4)


def test_large_batches_are_merged_in_parts():
    x = decaying(1000, 60)
    torch.testing.assert_close(
        streamed(4, x, 1000).components, PCA(4).fit(x).components, atol=1e-6, rtol=0
    )


def test_samples_sorted_by_their_class():
    labels = torch.arange(10).repeat_interleave(100)
    centers = 3 * torch.randn(10, 80)
    x = centers[labels] + torch.randn(1000, 80)
    kept = [pca.transform(x).var(0).sum() for pca in (streamed(4, x, 100), PCA(4).fit(x))]
    assert kept[0] == pytest.approx(float(kept[1]), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rank", "n_features"), [(0, 9), (2, 9), (2, 400)])
def test_rounding_is_no_component(dtype, rank, n_features):
    x = 7 + torch.randn(700, rank) @ torch.randn(rank, n_features)
    pca = streamed(4, x.to(dtype), 100)
    assert pca.components.shape == (rank, n_features)
    assert pca.transform(x).shape == (700, rank)
    assert pca.transform(x).dtype == torch.float64


def test_small_components_are_no_rounding():
    x = decaying(2000, 30, rate=0.02)
    deviations = streamed(4, x, 100).variances.sqrt()
    assert len(deviations) == 4  # 0.02 ** 4 lies below a millionth
    torch.testing.assert_close(deviations, PCA(4).fit(x).variances[:4].sqrt(), rtol=1e-3, atol=0)


def test_a_fit_ends_a_stream():
    x, other = decaying(100, 5), decaying(100, 5, seed=1)
    pca = PCA(2).partial_fit(other).fit(other).partial_fit(x)
    torch.testing.assert_close(pca.mean, x.mean(0))


def test_integers_and_images():
    pixels = torch.randint(256, (90, 3, 4), dtype=torch.uint8)
    parts = PCA(2).partial_fit(pixels[:40]).partial_fit(pixels[40:])
    torch.testing.assert_close(parts.components, PCA(2).fit(pixels).components)


def test_other_features_are_an_error():
    with pytest.raises(ValueError, match=r"`x` must be \(N, 5\) .* got shape \(100, 4\)"):
        PCA(2).partial_fit(decaying(100, 5)).partial_fit(decaying(100, 4))
    with pytest.raises(ValueError, match="`x` must be finite"):
        PCA(2).partial_fit(torch.full((3, 2), torch.nan))


@pytest.mark.parametrize("shape", [(40, 300), (300, 301), (30, 40)])
@pytest.mark.parametrize("rate", [0.97, 0.2])
def test_few_samples_of_many_features_are_decomposed_as_any(shape, rate):
    """Products of samples resolve four deviations at the one rate, but not at the other."""
    x = 1e3 * decaying(400, 400, rate)[: shape[0], : shape[1]].numpy()
    few = PCA(6).fit(x)
    scales, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[1:]
    np.testing.assert_allclose(few.variances.sqrt()[:6] * (len(x) - 1) ** 0.5, scales[:6])
    assert few.variances.shape == (shape[0],)
    assert few.total_variance == pytest.approx(x.var(0, ddof=1).sum())
    signs = np.sign((few.components.numpy() * axes[:6]).sum(1))
    np.testing.assert_allclose(few.components, signs[:, None] * axes[:6], atol=1e-7)


def test_products_are_taken_where_they_are_cheaper(monkeypatch):
    def refused(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(torch.linalg, "svd", refused)
    PCA(4).fit(decaying(400, 400, rate=0.97)[:30])
    with pytest.raises(AssertionError):
        PCA(4).fit(decaying(400, 400, rate=0.01)[:30])


def test_the_rank_of_few_samples():
    x = torch.randn(20, 3).double() @ torch.randn(3, 100).double()
    for dtype in (torch.float32, torch.float64):
        assert PCA(3).fit((x + 5).to(dtype)).components.shape == (3, 100)
        with pytest.raises(ValueError, match="`n` must be at most 3, the rank of `x`, got 4"):
            PCA(4).fit((x + 5).to(dtype))
