"""What a decomposition reads from loaders, and which samples it holds out."""

from collections import UserDict, namedtuple

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from captum_mi.attr._batches import Batch, hold_out

CPU = torch.device("cpu")
INPUTS, LABELS = torch.randn(3, 2), torch.tensor([0, 1, 2])
NAMES = ["a", "b", "c"]


class Numbers(Dataset):
    """Sample i is the number i."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return torch.tensor([float(i)])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(4, 1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers_of(loader):
    return [batch.flatten().int().tolist() for batch in loader]


def of(value):
    return [i for batch in numbers_of(value) for i in batch]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (INPUTS, None),
        ([INPUTS], None),
        ((INPUTS, LABELS), LABELS),
        ([INPUTS, LABELS], LABELS),
        (namedtuple("Pair", "image target")(INPUTS, LABELS), LABELS),
        ({"pixel_values": INPUTS, "labels": LABELS}, LABELS),
        ({"label": LABELS, "img": INPUTS}, LABELS),
        (UserDict(pixel_values=INPUTS, labels=LABELS), LABELS),  # as of Hugging Face's processors
        ({"pixel_values": INPUTS}, None),
        ((INPUTS, NAMES), NAMES),
    ],
)
def test_a_batch_is_read(given, labels):
    batch = Batch.of(given, CPU)
    assert batch.inputs is INPUTS
    assert batch.labels is labels


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a photograph", "'a photograph'"),
        ({"img": INPUTS, "mask": 1, "label": LABELS}, "a mapping with 'img', 'mask', 'label'"),
        ({"labels": LABELS}, "a mapping with 'labels'"),
        ((INPUTS, LABELS, 7), "a tuple with Tensor, Tensor, int"),
        (([INPUTS, INPUTS], LABELS), "a list with Tensor, Tensor"),
        ([], "a list with "),
        (None, "NoneType"),
    ],
)
def test_what_is_no_batch_is_refused(given, words):
    with pytest.raises(TypeError, match=rf"must give tensors .*, got {words}; give it a collate"):
        Batch.of(given, CPU)


def test_a_batch_is_moved_to_the_device_with_its_labels():
    batch = Batch.of((INPUTS, LABELS), torch.device("meta"))
    assert batch.inputs.is_meta
    assert batch.labels.is_meta


def test_a_share_of_a_loader_is_held_out_and_the_rest_shuffled():
    train, test = hold_out(DataLoader(Numbers(50), 8), 0.2, seeded())
    first, second = numbers_of(train), numbers_of(train)
    held_out = of(test)
    assert len(held_out) == 10
    assert of(test) == held_out
    assert [len(batch) for batch in first] == [8] * 5
    assert first != second
    seen = {i for batch in first + second for i in batch}
    assert not seen & set(held_out)
    assert seen | set(held_out) == set(range(50))
    again = hold_out(DataLoader(Numbers(50), 8), 0.2, seeded())
    assert numbers_of(again[0]) == first
    other = hold_out(DataLoader(Numbers(50), 8), 0.2, seeded(1))
    assert set(of(other[1])) != set(held_out)


def test_no_held_out_sample_is_alone_in_a_batch():
    _, test = hold_out(DataLoader(Numbers(90), 8), 0.1, seeded())
    assert [len(batch) for batch in numbers_of(test)] == [8]


def test_drawing_batches_leaves_the_global_generator():
    parts = hold_out(DataLoader(Numbers(50), 8), 0.2, seeded())
    state = torch.get_rng_state()
    for part in parts:
        of(part)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loaders_options_stay():
    def collate(samples):
        return 100 + torch.stack(samples)

    loader = DataLoader(
        Numbers(50), 8, collate_fn=collate, num_workers=2, persistent_workers=True, timeout=60
    )
    for part in hold_out(loader, 0.2, seeded()):
        for name in ("num_workers", "collate_fn", "timeout", "persistent_workers", "batch_size"):
            assert getattr(part, name) == getattr(loader, name)
    plain = DataLoader(Numbers(50), 8, collate_fn=collate)
    assert min(of(hold_out(plain, 0.2, seeded())[1])) >= 100


def test_a_small_loader_has_smaller_batches():
    train, test = hold_out(DataLoader(Numbers(10), 64), 0.2, seeded())
    assert [len(batch) for batch in numbers_of(train)] == [8]
    assert [len(batch) for batch in numbers_of(test)] == [2]


@pytest.mark.parametrize(("length", "share"), [(3, 0.5), (10, 0.05), (3, 0.9), (2, 0.9), (1, 0.5)])
def test_two_samples_must_be_on_either_side(length, share):
    with pytest.raises(ValueError, match=rf"has {length} samples, .* takes two of each"):
        hold_out(DataLoader(Numbers(length), 8), share, seeded())


def test_of_a_list_the_last_batches_are_held_out():
    batches = list(range(10))
    assert hold_out(batches, 0.25, seeded()) == (batches[:7], batches[7:])
    assert hold_out(batches, 0.01, seeded()) == (batches[:9], batches[9:])
    with pytest.raises(ValueError, match="has 1 batches, of which none is left to train on"):
        hold_out(batches[:1], 0.1, seeded())


def test_a_loader_of_its_own_is_taken_as_it_is():
    loader, validation = DataLoader(Stream(), 2), iter([INPUTS])
    assert hold_out(loader, validation, seeded()) == (loader, validation)


ODD = {
    "stream": DataLoader(Stream(), 2),
    "batch sampler": DataLoader(
        Numbers(9), batch_sampler=BatchSampler(SequentialSampler(Numbers(9)), 3, drop_last=True)
    ),
    "weighted": DataLoader(Numbers(9), 3, sampler=WeightedRandomSampler([1.0] * 9, 9)),
    "fewer": DataLoader(Numbers(9), 3, sampler=RandomSampler(Numbers(9), num_samples=4)),
    "no batches": DataLoader(TensorDataset(INPUTS), batch_size=None),
    "generator": (batch for batch in [INPUTS]),
    "data set": TensorDataset(INPUTS),
}


@pytest.mark.parametrize("loader", ODD.values(), ids=ODD)
def test_what_cannot_be_divided_is_refused(loader):
    with pytest.raises(TypeError, match=r"`loader` must .*give `validation` a loader of its own"):
        hold_out(loader, 0.1, seeded())


@pytest.mark.parametrize("share", [0, 0.0, 1, 1.5, -0.1, float("nan"), None])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(ValueError, match=r"`validation` must lie between 0 and 1, .*, got"):
        hold_out([INPUTS, INPUTS], share, seeded())
