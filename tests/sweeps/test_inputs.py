import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.sweeps import DrawnInputs, GivenInputs
from sparsemend.sweeps.inputs import sizes_of

BATCHES = [torch.full((4, 3), float(i)) for i in range(5)]


def test_images_are_drawn_as_compress_draws_them(images):
    inputs = DrawnInputs(images, calibration_size=50, heldout_size=30, batch_size=32, limit=7)
    seen, unseen = inputs.draw(5)
    torch.testing.assert_close(torch.cat(seen), images.calibration(50, seed=5))
    torch.testing.assert_close(torch.cat(unseen), images.heldout(30, calibration_size=50, seed=5))
    assert [len(batch) for batch in seen] == [32, 18]
    labelled = list(inputs.test())
    assert sum(len(labels) for _, labels in labelled) == 7


@pytest.mark.parametrize("count", [2, 3, 20, 300, 767, 768, 1000])
def test_usual_sizes_share_what_there_is(tmp_path, count):
    np.savez(tmp_path / "rows.npz", rows=np.zeros((count, 2), dtype="float32"))
    data = sm.data.load(tmp_path / "rows.npz")
    for asked in ((None, None), (1, None), (None, 1), (None, 0), (count, 0)):
        seen, unseen = sizes_of(data, *asked)
        assert all(size in (None, found) for size, found in zip(asked, (seen, unseen), strict=True))
        assert 1 <= seen <= max(512, asked[0] or 0)
        assert (unseen > 0) == (asked[1] != 0)
        assert unseen <= 256
        assert seen + unseen <= count
        inputs = DrawnInputs(data, *asked)
        assert [sum(map(len, batches)) for batches in inputs.draw(0)] == [seen, unseen]
    assert sizes_of(data) == data.shares(512, 256)
    seen, unseen = sizes_of(data, most=600)
    assert unseen == sizes_of(data)[1]
    assert seen == max(sizes_of(data)[0], min(600, count - unseen))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heldout_size": -1}, "heldout_size is out of range"),
        ({"batch_size": 0}, "batch_size is out of range"),
        ({"limit": 0}, "limit is out of range"),
    ],
)
def test_sizes_are_checked_at_once(images, sizes, message):
    with pytest.raises(SparsemendError, match=message):
        DrawnInputs(images, **sizes)


def test_a_function_of_the_seed():
    inputs = GivenInputs(lambda seed: BATCHES[seed:], heldout=lambda seed: BATCHES[:seed])
    seen, unseen = inputs.draw(3)
    assert [float(x[0, 0]) for x in seen] == [3.0, 4.0]
    assert [float(x[0, 0]) for x in unseen] == [0.0, 1.0, 2.0]
    assert inputs.test() is None


@pytest.mark.parametrize("given", [BATCHES, DataLoader(torch.cat(BATCHES), batch_size=4)])
def test_the_same_batches_for_every_seed(given):
    first, second = GivenInputs(given).draw(0), GivenInputs(given).draw(1)
    for seen, unseen in (first, second):
        assert [float(x[0, 0]) for x in seen] == [0.0, 1.0, 2.0, 3.0]
        assert [float(x[0, 0]) for x in unseen] == [4.0]  # the last fifth


def test_a_tensor_is_a_data_set():
    seen, unseen = GivenInputs(torch.zeros(300, 2)).draw(0)
    assert (sum(map(len, seen)), sum(map(len, unseen))) == (256, 44)


def test_one_batch_is_cut():
    seen, unseen = GivenInputs([torch.arange(20.0).view(10, 2)]).draw(0)
    assert (seen[0].shape, unseen[0].shape) == ((8, 2), (2, 2))
    assert float(unseen[0][0, 0]) == 16.0


def test_one_input_leaves_nothing_to_judge_on():
    with pytest.raises(SparsemendError, match="no inputs left to measure agreement on"):
        GivenInputs([torch.ones(1, 2)]).draw(0)
    GivenInputs([torch.ones(1, 2)], heldout=BATCHES).draw(0)


@pytest.mark.parametrize("name", ["data", "heldout", "test"])
def test_what_can_be_iterated_once_is_refused(name):
    given = {"data": BATCHES, "heldout": None, "test": None} | {name: iter(BATCHES)}
    with pytest.raises(SparsemendError, match=f"{name} can be iterated only once"):
        GivenInputs(*given.values())
