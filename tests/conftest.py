"""Shared fixtures."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from captum_mi.models import load_clip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def embedded():
    return load_clip()
