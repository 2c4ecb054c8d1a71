"""The matrix of a table, for ``captum-mi estimate`` without variables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 10
"""Pairs that are printed."""


def print_matrix(table: DataFrame, out: Path, permutations: int, level: float = 0.05) -> None:
    """Estimates the information of each pair of columns, prints the largest, and writes all.

    Args:
        table: columns of numbers or of texts.
        out: where to write, .csv; a heat map of the same name is written beside it.
        permutations: of the test of each pair.
        level: p-values above it are not told from independence.
    """
    import pandas as pd

    from captum_mi.estimators import mutual_info_matrix
    from captum_mi.visualization import information_matrix

    found = mutual_info_matrix(table, permutations=permutations, n_jobs=-1)
    print(f"{len(table)} rows, {len(found.kinds)} columns")
    for kind in sorted(set(found.kinds.values())):
        names = [str(name) for name, each in found.kinds.items() if each == kind]
        print(f"  {kind}: {', '.join(names)}")
    pairs = pd.DataFrame(
        {
            "column": found.values.index[j],
            "other": found.values.columns[i],
            "nats": found.values.iloc[i, j],
            "std_error": found.std_errors.iloc[i, j],
            "p_value": None if found.p_values is None else found.p_values.iloc[i, j],
        }
        for i in range(len(found.kinds))
        for j in range(i)
    )
    pairs = pairs.sort_values("nats", ascending=False, kind="stable")
    print("   nats  std error      p  pair")
    for _, pair in pairs.head(SHOWN).iterrows():
        doubt = "" if pair.p_value <= level else "  (not told from independence)"
        print(
            f"{pair.nats:7.3f}  {pair.std_error:9.3f}  {pair.p_value:5.3f}"
            f"  {pair.column}, {pair.other}{doubt}"
        )
    if len(pairs) > SHOWN:
        print(f"... and {len(pairs) - SHOWN} more pairs")
    out.parent.mkdir(parents=True, exist_ok=True)
    pairs.to_csv(out, index=False)
    picture = out.with_suffix(".png")
    information_matrix(found.values, found.p_values, level=level).savefig(picture, dpi=120)
    print(f"\nwrote {out} and {picture}")
