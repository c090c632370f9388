import dataclasses

import numpy as np
import pytest
from tests.reports.marks import plain
from tests.reports.samples import make_diagnosis

from sparsemend.reports.words import of_diagnosis


def test_a_diagnosis():
    diagnosis = make_diagnosis()
    raw = np.full_like(diagnosis.raw, 2.0)
    rr = np.broadcast_to([[0.25], [0.5], [1.2]], raw.shape).copy()
    known = dataclasses.replace(diagnosis, raw=raw, residual=raw * rr, rr=rr)
    words = plain(of_diagnosis(known)).splitlines()
    assert words[0] == (
        "At 9 % density, repair variance undoes 35 % of the damage: a layer's error goes from 2 "
        "to 1.3 of its signal's variance on average."
    )
    assert words[1] == (
        "Largest error left, over the signal's variance: fc (2.4), layer1.0.conv1 (1) and conv1 "
        "(0.5)."
    )
    assert words[-1] == (
        "The repair makes the damage worse (RR above 1) in 1 layer (fc), at densities up to 100 %."
    )


def test_a_diagnosis_where_repair_never_hurts_or_adds():
    diagnosis = make_diagnosis()
    tame = np.minimum(diagnosis.rr, 0.9)
    words = plain(of_diagnosis(dataclasses.replace(diagnosis, rr=tame)))
    assert "Nowhere does the repair make the damage worse (RR never exceeds 1)." in words
    worse = dataclasses.replace(diagnosis, residual=diagnosis.raw * 2)
    assert "adds 100 % of the damage" in plain(of_diagnosis(worse))


def test_channels_that_were_left_out_and_no_damage():
    diagnosis = dataclasses.replace(make_diagnosis(), left_out={"fc": 3})
    assert "3 channels without variance in fc are left out." in plain(of_diagnosis(diagnosis))
    nothing = dataclasses.replace(diagnosis, raw=diagnosis.raw * 0)
    assert plain(of_diagnosis(nothing)) == "At 9 % density nothing is damaged."


@pytest.mark.parametrize("name", ["x" * 300, "<script>"])
def test_long_names_are_shortened(name):
    words = plain(of_diagnosis(make_diagnosis((name, "b", "c"))))
    assert len(max(words.split(), key=len)) < 60
