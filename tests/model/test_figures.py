"""Figures of trainings that want more than counting."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from model.figures import segment_figures
from model.labels import RHYTHMS

AF, AFL, OTHER = (RHYTHMS.index(name) for name in ("AF", "AFL", "OTHER"))


def fold(af: list[float], afl: list[float], true: list[bool]) -> Any:
    """Answers to segments: so sure of AF and AFL, the rest OTHER."""
    probs = np.zeros((len(true), len(RHYTHMS)), np.float32)
    probs[:, AF], probs[:, AFL] = af, afl
    probs[:, OTHER] = 1 - probs.sum(1)
    return SimpleNamespace(
        segment=np.where(true, AF, OTHER), segment_probs=probs, segment_patient=np.array(["p"] * len(true))
    )


def test_the_threshold_of_a_fold_is_chosen_on_the_others_and_counts_flutter() -> None:
    low = fold([0.3, 0.1, 0.1, 0.05], [0.0, 0.2, 0.0, 0.0], [True, True, False, False])  # 0.3 tells all
    high = fold([0.3, 0.4, 0.35, 0.2], [0.0, 0.0, 0.0, 0.0], [True, True, False, False])
    found = segment_figures([low, low, high])
    assert found["thresholds"] == [0.3, 0.3, 0.3]
    assert found["AF by threshold"] == {"yes": 6, "no": 6, "se": 100.0, "sp": round(100 * 5 / 6, 2)}
    assert found["AF"]["se"] == 0.0, "none is the likeliest rhythm"


def test_one_fold_alone_has_no_threshold() -> None:
    found = segment_figures([fold([0.9, 0.1], [0.0, 0.0], [True, False])])
    assert "AF by threshold" not in found
    assert found["AF"] == {"yes": 1, "no": 1, "se": 100.0, "sp": 100.0}
