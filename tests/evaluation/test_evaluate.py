import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

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
    loader = torch.utils.data.DataLoader(
        list(zip(*map(torch.cat, zip(*tensors, strict=True)), strict=True)), 2
    )
    assert evaluate(OneHot(), loader) == expected


def test_every_token_and_pixel_has_a_label():
    tokens, labels = torch.tensor([[0, 1, 2], [3, 0, 1]]), torch.tensor([[0, 1, 3], [3, 1, 1]])
    assert evaluate(OneHot(), [(tokens, labels)]) == Evaluation(4 / 6, 6)


def test_inputs_may_be_a_mapping():
    assert evaluate(OneHot(), [({"x": torch.tensor([0, 1])}, torch.tensor([0, 0]))]).top1 == 0.5


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
