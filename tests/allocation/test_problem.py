import dataclasses
import math

import numpy as np
import pytest
import torch

from sparsemend.errors import SparsemendError

from .networks import make_layers, make_problem, random_curves, random_weights

LAYERS = make_layers([(4, 3, 3, 3), (5, 4)])


def test_sizes():
    problem = make_problem(LAYERS, 10)
    assert problem.sizes == (108, 20)
    assert problem.total == 128


def test_magnitudes_are_flat_copies_of_one_type():
    weights = random_weights(LAYERS)
    weights["layer1"] = -weights["layer1"].abs().to(torch.bfloat16)
    problem = make_problem(LAYERS, 10, weights)
    before = weights["layer1"].clone()
    magnitudes = problem.magnitudes(1)
    assert magnitudes.dtype == torch.float32
    assert torch.equal(magnitudes, -before.float().reshape(-1))
    magnitudes.zero_()
    assert torch.equal(weights["layer1"], before)
    weights["layer1"] = weights["layer1"].double()
    assert problem.magnitudes(0).dtype == torch.float64


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_magnitudes_refuse_weights_that_are_no_numbers(value):
    weights = random_weights(LAYERS)
    weights["layer1"][2, 2] = value
    with pytest.raises(SparsemendError, match=r"layer 'layer1' has a weight that is no number"):
        make_problem(LAYERS, 10, weights).magnitudes(1)


def test_magnitudes_refuse_missing_and_misshapen_weights():
    with pytest.raises(SparsemendError, match=r"no weight tensor for layer 'layer0': got \[\]"):
        make_problem(LAYERS, 10).magnitudes(0)
    weights = random_weights(LAYERS) | {"layer1": torch.ones(4, 5)}
    with pytest.raises(SparsemendError) as caught:
        make_problem(LAYERS, 10, weights).magnitudes(1)
    assert str(caught.value) == (
        "weight of layer 'layer1' has another shape: got (4, 5); allowed: (5, 4)"
    )


def test_a_missing_diagnosis_is_named():
    with pytest.raises(SparsemendError) as caught:
        make_problem(LAYERS, 10).require_diagnosis("rr")
    assert str(caught.value) == (
        "rule 'rr' needs a diagnosis: got None; allowed: a diagnosis of the same network; "
        "pass diagnosis=..., made by diagnose"
    )


@pytest.mark.parametrize("names", [["layer0", "fc"], ["layer0"], ["layer0", "layer1", "layer1"]])
def test_a_diagnosis_of_other_layers_is_refused(names):
    curves = dataclasses.replace(random_curves(LAYERS), layers=names)
    with pytest.raises(SparsemendError, match="the diagnosis is of other layers than the network"):
        make_problem(LAYERS, 10, diagnosis=curves).require_diagnosis("rr")


def test_curves_follow_the_layers_of_the_problem():
    curves = random_curves(LAYERS)
    densities, values = make_problem(LAYERS[::-1], 10, diagnosis=curves).curves("raw", "rr")
    assert np.array_equal(densities, curves.densities)
    assert np.array_equal(values, curves.raw[::-1])


def test_curves_that_do_not_fit_are_refused():
    curves = random_curves(LAYERS, points=4)
    for wrong, text in [
        ({"residual": curves.residual[:1]}, r"shape of 'residual' .* got \(1, 4\)"),
        ({"densities": curves.densities[::-1]}, "densities of the diagnosis are no grid"),
        ({"densities": np.array([0.0, 0.1, 0.2, 0.3])}, "ascending fractions in"),
    ]:
        problem = make_problem(LAYERS, 10, diagnosis=dataclasses.replace(curves, **wrong))
        with pytest.raises(SparsemendError, match=text):
            problem.curves("residual", "rr")
