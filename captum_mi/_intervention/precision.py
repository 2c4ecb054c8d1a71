"""Which precision and which numbers of a tensor count."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(tensor: Tensor) -> Tensor:
    """Widens half precision to float32; keeps float32 and float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
