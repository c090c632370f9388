from tests.reports.marks import plain
from tests.reports.samples import (
    make_ablation,
    make_compression,
    make_diagnosis,
    make_records,
    make_transitions,
)

from sparsemend.reports import Contents
from sparsemend.reports.words import sentences


def test_all_together():
    contents = Contents(
        diagnoses={"one": make_diagnosis(), "two": make_diagnosis()},
        compression=make_compression(),
        records=(*make_records(), *make_ablation()),
        transitions=make_transitions(),
    )
    words = plain(sentences(contents))
    for part in ("half of the accuracy", "weights removed", "one: at 9 %", "instead of erk raises"):
        assert part in words
    assert "nan" not in words.lower()
    assert "None" not in words
    assert sentences(Contents()) == []
