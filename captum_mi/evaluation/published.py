"""The NIB paper's published tables, and its headline recomputed from them."""

from __future__ import annotations

import json
from importlib.resources import files
from statistics import mean
from typing import Any


def published() -> dict[str, Any]:
    """Returns the paper's Tables 2 to 8, as far as they are known.

    Returns:
        "table2" to "table8", each with "what" it holds, whether it is "complete", and its "values";
        methods go by their names in ``METHODS``.

    Source: Zhu et al., ICLR 2025; Table 2 from the results in the authors' repository.

    Example:
        >>> published()["table2"]["values"]["ImageNet"]["nib"]["image_drop"]
        0.9012
    """
    tables: dict[str, Any] = json.loads(
        files("captum_mi.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    )
    return tables


def headline() -> dict[str, float]:
    """Recomputes what the abstract claims of NIB over M2IB, in percent, from Table 2.

    Drops count as (M2IB - NIB) / M2IB, increases and maps per second as (NIB - M2IB) / NIB; means
    over drop and increase and over the three data sets. So "speed" is time saved, not speed gained.

    Returns:
        "image", "text" and "speed".

    Example:
        >>> {name: round(value, 2) for name, value in headline().items()}
        {'image': 9.0, 'text': 58.83, 'speed': 63.95}
    """
    sets = published()["table2"]["values"].values()

    def gain(score: str) -> float:
        parts: list[float] = []
        for methods in sets:
            ours, theirs = methods["nib"][score], methods["m2ib"][score]
            better, worse = (theirs, ours) if score.endswith("drop") else (ours, theirs)
            parts.append(100 * (better - worse) / better)
        return mean(parts)

    return {
        "image": mean((gain("image_drop"), gain("image_increase"))),
        "text": mean((gain("text_drop"), gain("text_increase"))),
        "speed": gain("fps"),
    }
