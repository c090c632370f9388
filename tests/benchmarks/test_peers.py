"""The peers of the benchmark do what their papers say, on layers small enough to check."""

import copy

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.layers import surroundings

# Needs the repository's root on the path: python -m pytest.
sparsegpt = pytest.importorskip("benchmarks.peers.sparsegpt")
obc = pytest.importorskip("benchmarks.peers.obc")
alps = pytest.importorskip("benchmarks.peers.alps")
wanda = pytest.importorskip("benchmarks.peers.wanda")
walk = pytest.importorskip("benchmarks.peers._walk")
main = pytest.importorskip("benchmarks.peers.__main__")
problems = pytest.importorskip("benchmarks.peers._problem")
decoder = pytest.importorskip("benchmarks.peers.decoder")


def problem(rows=4, width=7, seed=0, groups=1):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, width, generator=generator, dtype=torch.float64)
    x = torch.randn(groups, width, 3 * width, generator=generator, dtype=torch.float64)
    return weight, x @ x.mT / x.shape[2]


@pytest.mark.parametrize("module", [sparsegpt, obc, alps])
def test_nothing_pruned_leaves_the_weights(module):
    weight, second = problem()
    after, mask = module.prune_layer(weight, second, weight.numel())
    assert mask.all()
    torch.testing.assert_close(after, weight)


@pytest.mark.parametrize("module", [sparsegpt, obc, alps])
@pytest.mark.parametrize("kept", [0, 1, 5, 27, 28, 55, 56])
def test_counts_are_exact(module, kept):
    weight, second = problem(groups=2)
    after, mask = module.prune_layer(weight, second, kept)
    assert int(mask.sum()) == kept
    assert not after[~mask].any()


def test_every_block_of_sparsegpt_keeps_its_share():
    weight, second = problem(rows=6, width=10)
    _, mask = sparsegpt.prune_layer(weight, second, 20, block=4)
    assert [int(part.sum()) for part in mask.split(4, dim=2)] == [8, 8, 4]


def test_sparsegpt_keeps_n_of_every_m_and_little_is_lost():
    weight, second = problem(rows=6, width=8)
    after, mask = sparsegpt.prune_layer(weight, second, 24, group=(2, 4))
    assert (mask.unflatten(2, (2, 4)).sum(dim=3) == 2).all()
    assert not after[~mask].any()
    error, naive = ((w - weight) @ second * (w - weight) for w in (after, weight * mask))
    assert error.sum() < naive.sum()


def test_every_row_of_wanda_keeps_its_share_of_the_largest_products():
    weight, second = problem(groups=2)
    square = second.diagonal(dim1=1, dim2=2)
    mask = wanda.choose(weight, square, 27)
    assert mask.sum(dim=2).flatten().tolist() == [4, 4, 4, 3, 3, 3, 3, 3]
    score = weight.abs() * square.sqrt().unsqueeze(1)
    assert (torch.where(mask, score, torch.inf).amin(2) > (score * ~mask).amax(2)).all()


def test_alps_is_closer_than_the_best_of_its_start():
    weight, second = problem(rows=6, width=12)
    kept = weight.numel() // 2

    def error(other):
        return float(((other - weight) @ second * (other - weight)).sum())

    after, _ = alps.prune_layer(weight, second, kept)
    largest = weight.abs() >= weight.abs().flatten().sort(descending=True).values[kept - 1]
    assert error(after) < 0.9 * error(weight * largest)


def test_eliminating_one_weight_is_the_closed_form():
    weight, second = problem(rows=1)
    row, inverse = weight[0, 0], second[0].inverse()
    cost = row.square() / inverse.diagonal()
    gone = int(cost.argmin())
    expected = row - inverse[gone] * row[gone] / inverse[gone, gone]
    after, mask = obc.prune_layer(weight, second, row.numel() - 1, damping=0.0)
    assert mask[0, 0].logical_not().nonzero().flatten().tolist() == [gone]
    torch.testing.assert_close(after[0, 0], expected)
    _, losses = obc.eliminate(weight[0], second[0])
    torch.testing.assert_close(losses[0, 0], cost.min())


def test_recorded_losses_add_up_to_the_error():
    weight, second = problem(rows=3)
    order, losses = obc.eliminate(weight[0], second[0])
    for pruned in range(weight.shape[2] + 1):
        mask = torch.ones_like(weight, dtype=torch.bool)
        mask[0].scatter_(1, order[:, :pruned], False)
        error = obc.solve_rows(weight, second, mask)[0] - weight[0]
        quadratic = (error @ second[0] * error).sum(dim=1)
        torch.testing.assert_close(quadratic, losses[:, :pruned].sum(dim=1))


def test_rows_give_in_the_order_of_their_next_loss():
    losses = torch.tensor([[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]])
    counts = [obc.row_counts(losses, pruned).tolist() for pruned in range(7)]
    assert counts == [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3], [2, 3], [3, 3]]


@pytest.mark.parametrize("sequential", [False, True])
def test_networks_keep_what_was_allocated(sequential):
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    batches = list(torch.randn(24, 3, 6, 6).split(12))
    layers = sm.discover(dense, batches[0])
    allocation = sm.allocate(dense, 0.5, "global", layers=layers)
    peers = (sparsegpt.sparsegpt, wanda.wanda, alps.alps)
    for prune in (*peers, obc.obc_sequential if sequential else obc.obc):
        model = copy.deepcopy(dense)
        extra = (dense,) if prune is obc.obc_sequential else ()
        masks = prune(model, batches, layers, allocation, *extra)
        for name, kept in allocation.items():
            assert int(masks[name].sum()) == kept
            assert not model.get_submodule(name).weight[~masks[name]].any()


def test_refit_to_the_layers_own_outputs_leaves_the_weights():
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    x = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    layer = sm.discover(module, x)[0]
    second = obc.hessian(module, layer, [x])
    weight = obc.refit(module, layer, second, [x], [module(x).detach()], damping=1e-12)
    torch.testing.assert_close(weight.reshape(module.weight.shape), module.weight.detach())


def test_padding_is_no_input():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x, attention_mask):  # noqa: ARG002
            return self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    dense, x, mask = Masked(), torch.randn(3, 5, 4), torch.ones(3, 5)
    mask[1, 2:] = mask[2, 4:] = 0
    layers = sm.discover(dense, {"x": x, "attention_mask": mask})
    seen = {
        layer.name: inputs
        for layer, _, inputs in walk.walk(dense, [{"x": x, "attention_mask": mask}], layers)
    }
    assert torch.equal(seen["up"][0], x[mask.bool()])
    assert seen["down"][0].shape == (11, 6)


def test_a_table_has_a_line_for_every_method_and_ending():
    problem = problems.Problem(
        nn.Identity(), [], [], "uniform", {"loss": problems.Figure("loss", "{:.1f}".format)},
        lambda _: {}, (),
    )  # fmt: skip
    ended = {"cpu_seconds": 4.0, "none": {"loss": 2.0}}
    lines = main.rows(problem, {"sparsegpt": ended, "wanda": {**ended, "cpu_seconds": 1.0}})
    assert lines == [
        ("sparsegpt", "none", "2.0", "4", "1.00"),
        ("wanda", "none", "2.0", "1", "0.25"),
    ]


def test_the_decoder_learns_and_every_block_feeds_the_stream():
    torch.manual_seed(0)
    text = torch.arange(3000) % 5
    net = decoder.Decoder(5, width=8, depth=1, heads=2)
    before = float(sm.perplexity(net, text[:640].reshape(-1, 128)))
    decoder.train(net, text, steps=40)
    assert float(sm.perplexity(net, text[:640].reshape(-1, 128))) < 0.8 * before
    around = surroundings(sm.discover(net, text[:256].reshape(2, 128)))
    assert [name for name, found in around.items() if found.shortcut] == [
        "blocks.0.out",
        "blocks.0.down",
    ]
