"""The benchmark of word scores, on rows whose answers are known."""

import argparse
from dataclasses import dataclass

import pytest
import torch

from captum_mi.benchmarks import words
from captum_mi.benchmarks.words import Caption, agreement, full_captions, judge_words, table
from captum_mi.evaluation.rows import table_rows
from captum_mi.evaluation.samples import Scored
from captum_mi.models import cosines_without


@dataclass
class LosesRow:
    """Scores words by what the cosine loses without them, times a factor."""

    name: str
    factor: float
    blank: bool

    def token_scores(self, sample):
        without = cosines_without(
            sample.to_image, sample.processor, sample.encoded, blank=self.blank
        )
        loss = (sample.to_image(**sample.encoded) - without)[:, 0]
        return Scored(self.factor * loss.nan_to_num(9.0).detach()[None, None])


@dataclass
class WordRow:
    """Scores 1 for the words of a list, -1 for others."""

    name: str
    words: tuple

    def token_scores(self, sample):
        known = [1.0 if word in self.words else -1.0 for word in sample.pair.text.split()]
        return Scored(torch.tensor([[[5.0, *known, 5.0]]]))


def test_rows_whose_answers_are_known(embedded):
    pairs = full_captions(2)
    assert pairs[0].text == "a white bar and a yellow triangle"
    rows = [
        LosesRow("blanked", 1.0, blank=True),
        LosesRow("turned", -1.0, blank=True),
        LosesRow("deleted", 1.0, blank=False),
        WordRow("white", ("white",)),
        WordRow("shapes", ("bar", "triangle")),
    ]
    judged = judge_words(*embedded, rows, pairs)
    assert list(judged) == [row.name for row in rows]
    blanked, turned, deleted, white, shapes = (judged[row.name][0] for row in rows)
    assert blanked.blanked == pytest.approx(1)
    assert turned.blanked == pytest.approx(-1)
    assert deleted.deleted == pytest.approx(1)
    assert deleted.blanked == pytest.approx(blanked.deleted)
    assert deleted.blanked < 0.9
    assert (blanked.colors, blanked.shapes) == (1, 1)
    assert (turned.colors, turned.shapes) == (0, 0)
    assert (white.colors, white.shapes) == (0.5, 0)
    assert (shapes.colors, shapes.shapes) == (0, 1)
    assert blanked.text_drop < white.text_drop - 10


def test_scores_that_rank_nothing_agree_with_nothing():
    losses = torch.tensor([0.1, 0.3, 0.2])
    assert agreement(torch.ones(3), losses) == 0
    assert agreement(torch.tensor([1.0, 2.0, 9.0]), losses) == pytest.approx(0.5)


def test_table():
    captions = [Caption(0.5, 0.25, 1.0, 0.5, 4.0), Caption(0.7, 0.25, 0.5, 0.5, 6.0)]
    assert table({"nib": captions, "random": captions}).splitlines() == [
        "method   rank, blanked   rank, deleted  colors > 0  shapes > 0     text drop",
        "nib      0.600 ± 0.100   0.250 ± 0.000       0.750       0.500   5.00 ± 1.00",
        "random   0.600 ± 0.100   0.250 ± 0.000           -           -   5.00 ± 1.00",
    ]


def test_the_command(capsys):
    parser = argparse.ArgumentParser()
    words.add_arguments(parser)
    options = parser.parse_args(["--scenes", "2", "--steps", "3", "--methods", "nib", "ig"])
    words.run(options)
    first, *_, nib, integrated = capsys.readouterr().out.splitlines()
    assert first.startswith("2 captions")
    assert nib.startswith("nib ")
    assert integrated.startswith("ig ")


def test_a_path_from_a_blank_text_ranks_words_as_blanking_does(embedded):
    rows = table_rows(["nib", "random"], n_steps=5)
    judged = judge_words(*embedded, rows, full_captions(4))
    nib, noise = (sum(one.blanked for one in judged[row.name]) / 4 for row in rows)
    assert nib > 0.7 > noise
