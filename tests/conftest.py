"""Shared fixtures."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# Two threads gain 10 s on an idle machine of two cores; beside other work they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from captum_mi.models import load_clip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def embedded():
    return load_clip()
