import weakref

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.session import Session


def model_and_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    return model, [torch.randn(8, 6) for _ in range(3)]


def test_columns_alone_are_gathered_where_all_sums_would_be_too_large(monkeypatch):
    model, batches = model_and_batches()
    whole = Session(model, batches)
    assert whole.moments_for("weights") is None
    assert whole.moments_for("columns") is whole.calibration
    monkeypatch.setattr("sparsemend.session.session._MOST_SUMS", 60)
    session = Session(model, batches)
    columns = session.moments_for("columns")
    assert not session.calibrated
    assert session.moments_for("columns") is columns
    for name, moments in columns.moments.items():
        assert moments.outputs.error.mean.numel() == 0  # of no density
        expected = whole.calibration.moments[name].column_square
        torch.testing.assert_close(moments.column_square, expected)
    assert session.moments_for("moments") is session.moments_for("columns") is session.calibration


def test_masks_of_activations_are_the_same_from_columns_alone(monkeypatch):
    model, batches = model_and_batches()
    how = {"rule": "uniform", "mask": "activation", "repair": "none", "progress": False}
    expected = sm.compress(model, batches, 0.6, **how)
    monkeypatch.setattr("sparsemend.session.session._MOST_SUMS", 0)
    found = sm.compress(model, batches, 0.6, **how)
    assert all(torch.equal(found.masks[name], expected.masks[name]) for name in expected.masks)


def test_a_calibration_of_a_stream_lets_its_inputs_go():
    model, _ = model_and_batches()
    given = []

    def stream():
        for _ in range(6):
            # The one at work, and the first, which has told the layers.
            assert sum(ref() is not None for ref in given) <= 2
            batch = torch.randn(8, 6)
            given.append(weakref.ref(batch))
            yield batch
            del batch

    assert sm.calibrate(model, stream()).inputs == 48


def test_networks_without_values_are_refused():
    model, batches = model_and_batches()
    with pytest.raises(sm.SparsemendError, match=r"parameter '0.weight' has no values"):
        sm.compress(model.to("meta"), batches, 0.5, "erk", repair="none")


def test_inputs_that_say_nothing_are_told():
    model, _ = model_and_batches()
    with pytest.warns(sm.SparsemendWarning, match="all calibration inputs are the same"):
        sm.compress(model, torch.ones(8, 6), 0.5, "erk", repair="none")
    with pytest.raises(sm.SparsemendError, match=r"no batch dimension: got 'float32 \[6\]'"):
        sm.compress(model, list(torch.randn(8, 6)), 0.5, "erk", repair="none")
