from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsemend import SparsemendError, agreement
from sparsemend.evaluation import Reference, logits


class Wrapped(nn.Module):
    """A linear network whose output is packed by a function."""

    def __init__(self, pack=lambda x: x, seed=0, inputs=6, classes=5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.pack = nn.Linear(inputs, classes), pack

    def forward(self, x):
        return self.pack(self.fc(x))


class Given(nn.Module):
    """Returns the logits it was made with, row by row."""

    def __init__(self, values) -> None:
        super().__init__()
        self.values = torch.as_tensor(values, dtype=torch.float32)

    def forward(self, rows):
        return self.values[rows.long().flatten()]


def softmax(values):
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


rows = st.integers(2, 6).flatmap(
    lambda classes: st.lists(
        st.tuples(
            *2 * [st.lists(st.floats(-30, 30, width=32), min_size=classes, max_size=classes)]
        ),
        min_size=1,
        max_size=8,
    )
)


@given(rows)
def test_kl_and_top1_by_definition(pairs):
    ours, theirs = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    index = torch.arange(float(len(pairs)))
    result = agreement(
        Given(ours), Given(theirs), [index[:3], index[3:]] if index[3:].numel() else [index]
    )
    p, q = softmax(theirs), softmax(ours)
    assert result.kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-6, abs=1e-9)
    assert result.kl >= 0
    assert result.top1 == np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))
    assert result.count == len(pairs)


@given(st.integers(0, 1000))
def test_a_network_agrees_with_itself(seed):
    model = Wrapped(seed=seed)
    result = agreement(model, model, torch.randn(300, 6))
    assert (result.kl, result.top1, result.count) == (0, 1, 300)


def test_kl_is_of_the_reference_relative_to_the_model():
    ours, theirs = Given([[0.0, 0.0]]), Given([[np.log(0.9), np.log(0.1)]])
    forward = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    backward = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert agreement(ours, theirs, [torch.zeros(1)]).kl == pytest.approx(forward)
    assert agreement(theirs, ours, [torch.zeros(1)]).kl == pytest.approx(backward)


def test_classes_ruled_out_by_the_reference_do_not_count():
    ruled_out = [[0.0, 1.0, -np.inf]]
    model = Given(ruled_out)
    assert agreement(model, model, [torch.zeros(1)]).kl == 0
    p, q = softmax(np.array([[0.0, 1.0]]))[0], softmax(np.array([[0.0, 1.0, 2.0]]))[0]
    found = agreement(Given([[0.0, 1.0, 2.0]]), model, [torch.zeros(1)]).kl
    assert found == pytest.approx((p * np.log(p / q[:2])).sum())
    assert agreement(model, Given([[0.0, 1.0, 2.0]]), [torch.zeros(1)]).kl == np.inf


@pytest.mark.parametrize("nan", ["model", "reference"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_refused(nan, value):
    good, bad = Given([[0.0, 1.0]]), Given([[value, 1.0]])
    pair = (bad, good) if nan == "model" else (good, bad)
    with pytest.raises(SparsemendError, match="outputs of the network are not finite: 1 of 2 is"):
        agreement(*pair, [torch.zeros(1)])


PACKED = {
    "tensor": lambda x: x,
    "mapping": lambda x: {"loss": None, "logits": x},
    "object": lambda x: SimpleNamespace(logits=x),
    "tuple": lambda x: (x, None),
    "list": lambda x: [x],
}


@pytest.mark.parametrize("form", PACKED)
def test_outputs_of_every_form(form):
    x = torch.randn(7, 6)
    plain = agreement(Wrapped(seed=1), Wrapped(), [x])
    packed = agreement(Wrapped(PACKED[form], seed=1), Wrapped(PACKED[form]), [x])
    assert packed == plain
    assert plain.kl > 0


def test_every_token_and_every_pixel_is_a_prediction():
    tokens = torch.randn(2, 3, 6)
    flat = agreement(Wrapped(seed=1), Wrapped(), [tokens.reshape(6, 6)])
    result = agreement(Wrapped(seed=1), Wrapped(), [tokens], judge="kl")
    assert (result.count, result.top1) == (6, flat.top1)
    assert result.kl == pytest.approx(flat.kl)
    # [N, K, H, W]: the same predictions with the classes in front.
    pixels = torch.randn(2, 4, 3, 6)
    to_image = lambda x: x.permute(0, 3, 1, 2)  # noqa: E731
    images = agreement(Wrapped(to_image, seed=1), Wrapped(to_image), [pixels], judge="kl")
    flat = agreement(Wrapped(seed=1), Wrapped(), [pixels.reshape(24, 6)])
    assert (images.count, images.top1) == (24, flat.top1)
    assert images.kl == pytest.approx(flat.kl)


def test_logits_keep_the_order_of_predictions():
    values = torch.arange(2 * 5 * 3 * 4.0).reshape(2, 5, 3, 4)
    assert torch.equal(logits(values), values.permute(0, 2, 3, 1).reshape(24, 5))
    values = torch.arange(2 * 3 * 5.0).reshape(2, 3, 5)
    assert torch.equal(logits(values), values.reshape(6, 5))


@pytest.mark.parametrize("output", [torch.zeros(3), {"out": torch.zeros(2)}, (), None, "text"])
def test_outputs_that_are_no_logits(output):
    with pytest.raises(SparsemendError) as caught:
        logits(output)
    assert str(caught.value) == (
        f"the network's output is not understood as logits: got {type(output).__name__!r}; "
        "allowed: a tensor [N, classes], or an output with logits"
    )


def test_batches_weigh_by_their_size_and_may_come_from_a_generator():
    x = torch.randn(20, 6)
    whole = agreement(Wrapped(seed=1), Wrapped(), x)
    cut = agreement(Wrapped(seed=1), Wrapped(), (part for part in (x[:1], x[1:])))
    assert cut.kl == pytest.approx(whole.kl)
    assert (cut.top1, cut.count) == (whole.top1, 20)


def test_networks_stay_in_training_mode_and_run_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5)).train()
    assert agreement(model, model, torch.randn(50, 6)).kl == 0
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def nan(dense, sparse):
    return (dense - sparse).sum(dim=1) / 0


def test_inputs_that_cannot_be_used():
    model, x = Wrapped(), torch.randn(3, 6)
    for batches, text in [
        ([], "batches is empty; allowed: an iterable of at least one batch"),
        ([x, (x, torch.tensor([0, 1, 2]))], r"batches\[1\] carries labels: .*unlabelled inputs"),
        ([x, x / 0], r"batches\[1\] holds NaN or infinite values"),
        ([x[:, :4]], "the network cannot run on this batch"),
    ]:
        with pytest.raises(SparsemendError, match=text):
            agreement(model, model, batches)
    with pytest.raises(SparsemendError, match=r"outputs differ in shape: got \[3, 4\]; .*\[3, 5\]"):
        agreement(Wrapped(classes=4), model, [x])
    with pytest.raises(SparsemendError, match="losses of judge 'nan' are not finite: 3 of 3"):
        agreement(model, model, [x], judge=nan)


def test_text():
    index = torch.arange(2.0)
    result = agreement(Given(np.eye(2)), Given(np.ones((2, 2))), [index])
    assert str(result) == "KL 0.1201, same top-1 class 50.00 % of 2"


@pytest.mark.parametrize("form", PACKED)
def test_a_reference_gives_the_same_as_a_call(form):
    x = torch.randn(20, 6)
    batches = [x[:3], x[3:4], x[4:]]
    dense = Wrapped(PACKED[form])
    reference = Reference(dense, batches)
    for seed in (1, 2):
        model = Wrapped(PACKED[form], seed=seed)
        assert reference.agreement(model) == agreement(model, dense, batches)
    assert reference.agreement(dense).kl == 0


def test_a_reference_runs_the_dense_network_once_and_keeps_every_flag():
    class Counted(Wrapped):
        calls = 0

        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            self.calls += 1
            return super().forward(x)

    dense, model = Counted().train(), Counted(seed=1).train()
    reference = Reference(dense, [torch.randn(3, 6), torch.randn(2, 6)])
    before = reference.agreement(model)
    assert reference.agreement(model) == before
    assert (dense.calls, model.calls) == (2, 4)
    assert dense.training
    assert model.training
    # What the dense network becomes later is not asked for.
    with torch.no_grad():
        dense.fc.weight.zero_()
    assert reference.agreement(model) == before


def test_refusals_of_a_reference():
    with pytest.raises(SparsemendError, match="batches is empty"):
        Reference(Wrapped(), []).agreement(Wrapped())
    reference = Reference(Wrapped(), [torch.randn(3, 6)])
    with pytest.raises(SparsemendError, match="outputs differ in shape"):
        reference.agreement(Wrapped(classes=4))
