from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparsemend import Evaluation, SparsemendError, evaluate


class OneHot(nn.Module):
    """Predicts the class that is its input."""

    def forward(self, x):
        return nn.functional.one_hot(x.long(), 4).float()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_counts_every_label_once(batches):
    pairs = [pair for batch in batches for pair in batch]
    tensors = [tuple(torch.tensor(side) for side in zip(*batch, strict=True)) for batch in batches]
    expected = Evaluation(sum(x == y for x, y in pairs) / len(pairs), len(pairs))
    assert evaluate(OneHot(), tensors) == expected
    assert evaluate(OneHot(), iter(tensors)) == expected
    inputs, labels = map(torch.cat, zip(*tensors, strict=True))
    data = TensorDataset(inputs, labels)
    for given_ in (DataLoader(data, 2), data, (inputs, labels)):
        assert evaluate(OneHot(), given_) == expected


def test_every_token_and_pixel_has_a_label():
    tokens, labels = torch.tensor([[0, 1, 2], [3, 0, 1]]), torch.tensor([[0, 1, 3], [3, 1, 1]])
    assert evaluate(OneHot(), [(tokens, labels)]) == Evaluation(4 / 6, 6)


def test_inputs_may_be_a_mapping():
    assert evaluate(OneHot(), [({"x": torch.tensor([0, 1])}, torch.tensor([0, 0]))]).top1 == 0.5


def test_labels_may_be_arrays_or_called_so():
    x, labels = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 0, 3])
    for data in (
        (x.numpy(), labels.numpy()),
        [(x.numpy(), labels.numpy())],
        [{"x": x, "labels": labels}],
        [{"x": x, "label": labels}],
    ):
        assert evaluate(OneHot(), data) == Evaluation(3 / 4, 4)


def test_reads_as_a_number_and_as_text():
    result = Evaluation(0.98765, 1234)
    assert float(result) == 0.98765
    assert str(result) == "98.77 % top-1 on 1,234 inputs"


def test_the_network_stays_in_training_mode_and_runs_in_evaluation_mode():
    model = nn.Sequential(OneHot(), nn.Dropout(0.9)).train()
    labels = torch.arange(4)
    assert evaluate(model, [(labels, labels)]).top1 == 1
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("show", [True, False, None])
def test_progress_of_known_and_unknown_length(show, capsys):
    batch = (torch.arange(4), torch.arange(4))
    assert evaluate(OneHot(), [batch] * 3, progress=show).count == 12
    assert evaluate(OneHot(), (batch for _ in range(3)), progress=show).count == 12
    assert capsys.readouterr().out == ""


def test_batches_that_cannot_be_used():
    labels = torch.arange(3)
    for batches, text in [
        ([], "labelled_batches is empty; allowed: an iterable of at least one batch"),
        (
            [labels],
            r"labelled_batches\[0\] has no labels: Tensor; allowed: pairs \(inputs, labels\)",
        ),
        ([(labels, labels), (labels,)], r"labelled_batches\[1\] has no labels: tuple"),
        ([(labels, [0, 1, 2])], r"\[0\] has no labels: .*use sparsemend.agreement"),
        ([(labels, labels[:2])], r"\[0\] has labels of shape \[2\]; .*each of the 3 predictions"),
        ([(labels, torch.rand(3))], r"\[0\] has labels of type torch.float32; .*integer class"),
        ([(labels, torch.rand(3, 4))], r"\[0\] has labels of type torch.float32"),
    ]:
        with pytest.raises(SparsemendError, match=text):
            evaluate(OneHot(), batches)


def test_labels_that_do_not_count():
    tokens = torch.tensor([[0, 1, 2], [3, 0, 1]])
    labels = torch.tensor([[0, 2, -100], [-100, -100, 1]])
    assert evaluate(OneHot(), [(tokens, labels)]) == Evaluation(2 / 3, 3)
    assert evaluate(OneHot(), [(tokens, labels), (tokens[0], tokens[0])]).count == 6
    none = torch.full((3,), -100)
    assert evaluate(OneHot(), [(tokens, labels), (tokens[0], none)]).count == 3
    with pytest.raises(SparsemendError, match="no label counts: all are -100"):
        evaluate(OneHot(), [(tokens[0], none)])
    with pytest.raises(SparsemendError, match=r"\[0\] has labels below 0: got -1; .*from 0"):
        evaluate(OneHot(), [(tokens[0], torch.tensor([0, -1, 2]))])
    beyond = r"\[0\] has labels of classes that the network does not score: got 9; .* 0 to "
    with pytest.raises(SparsemendError, match=beyond):
        evaluate(OneHot(), [(tokens[0], torch.tensor([0, 9, 2]))])


class Packed(OneHot):
    def __init__(self, pack):
        super().__init__()
        self.pack = pack

    def forward(self, x):
        return self.pack(super().forward(x))


@pytest.mark.parametrize(
    ("pack", "output"),
    [
        (lambda y: {"loss": y.mean(), "logits": y}, None),
        (lambda y: {"hidden": -y, "logits": y}, None),
        (lambda y: {"out": y, "aux": -y}, None),
        (lambda y: SimpleNamespace(logits=y), None),
        (lambda y: (y, -y), None),
        (lambda y: {"scores": y}, None),
        (lambda y: {"features": -y, "scores": y}, "scores"),
        (lambda y: (-y, {"scores": y}), "1.scores"),
        (lambda y: (-y, y), 1),
    ],
)
def test_outputs_of_every_form(pack, output):
    labels = torch.arange(4)
    assert evaluate(Packed(pack), [(labels, labels)], output=output).top1 == 1


@pytest.mark.parametrize(
    ("pack", "text"),
    [
        (lambda y: {"features": -y, "scores": y}, "could be class scores: got 'features, scores'"),
        (lambda y: y[:, :1], "has one column, so it has no most likely class"),
        (lambda y: y.long(), "not understood as logits"),
    ],
)
def test_outputs_that_are_no_class_scores(pack, text):
    labels = torch.arange(4)
    with pytest.raises(SparsemendError, match=text):
        evaluate(Packed(pack), [(labels, labels)])


def test_outputs_that_are_nan_name_the_batch():
    labels = torch.arange(4)
    nan = Packed(lambda y: y.where(y.sum(dim=1, keepdim=True) * y[:, 3:] == 0, torch.nan))
    with pytest.raises(SparsemendError, match=r"outputs of .* are not finite"):
        evaluate(nan, [(labels[:3], labels[:3]), (labels, labels)])
    ignored = torch.tensor([0, 1, 2, -100])
    assert evaluate(nan, [(labels, ignored)]) == Evaluation(1.0, 3)
