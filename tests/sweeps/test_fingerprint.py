import copy

import pytest
import torch
from torch import nn

from sparsemend.sweeps.fingerprint import (
    inputs_fingerprint,
    labelled_fingerprint,
    mask_fingerprint,
    model_fingerprint,
)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_a_copy_is_the_same():
    assert model_fingerprint(model()) == model_fingerprint(copy.deepcopy(model()))


@pytest.mark.parametrize("name", list(model().state_dict()))
def test_every_parameter_and_buffer_counts(name):
    changed = model()
    with torch.no_grad():
        changed.state_dict()[name].add_(1)
    assert model_fingerprint(changed) != model_fingerprint(model())


def test_type_shape_and_class_count():
    class Other(nn.Sequential):
        pass

    prints = {model_fingerprint(model()), model_fingerprint(model().double()),
              model_fingerprint(Other(*model()))}  # fmt: skip
    assert len(prints) == 3
    assert model_fingerprint(model().bfloat16()) == model_fingerprint(model().bfloat16())


X = torch.arange(12.0).view(6, 2)


def test_values_and_batching_of_inputs_count():
    sets = [
        ([X],),
        ([X + 1],),
        (X.split(3),),
        (X.split(2),),
        ([X.view(6, 1, 2)],),
        ([X], []),
        ([], [X]),
        ([{"x": X, "scale": 1}],),
        ([{"x": X, "scale": 2}],),
    ]
    assert len({inputs_fingerprint(*batches) for batches in sets}) == len(sets)
    assert inputs_fingerprint([X.clone()]) == inputs_fingerprint([X])


def test_layout_in_memory_does_not_count():
    assert inputs_fingerprint([X.T]) == inputs_fingerprint([X.T.contiguous()])


def test_labels_count_and_inputs_are_counted():
    y = torch.arange(6)
    first = labelled_fingerprint([(X, y)])
    assert first[1] == 6
    assert labelled_fingerprint([(X, y + 1)])[0] != first[0]
    assert labelled_fingerprint([(X[:4], y[:4]), (X[4:], y[4:])])[1] == 6


def test_masks():
    mask = X > 3
    assert mask_fingerprint([("a", mask)]) == mask_fingerprint([("a", mask.clone())])
    prints = {mask_fingerprint(m) for m in ([("a", mask)], [("b", mask)], [("a", ~mask)])}
    assert len(prints) == 3
