"""Networks that lie in main memory and compute elsewhere, on a second device made of the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.execution.second_device import DEVICE, Away, second_device
from torch import nn
from torch.nn import functional as F

import sparsemend as sm
from sparsemend.execution.batches import call, evaluation_mode
from sparsemend.execution.offload import device_for, lent, offloading, returned


@pytest.fixture
def device(monkeypatch):
    with second_device(monkeypatch) as ledger:
        yield ledger
    assert not ledger.bytes, "something was left on the device"


def _cnn():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    model[1].running_mean.normal_()
    return model, [torch.randn(8, 2, 5, 5) for _ in range(2)]


class _Transformer(nn.Module):
    """One block, with parameters that are used outside of their modules."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6)
        self.place = nn.Parameter(torch.randn(5, 6))
        self.qkv = nn.Linear(6, 18)
        self.norm = nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.register_buffer("calls", torch.zeros(6))

    def forward(self, input_ids, attention_mask):
        self.calls += 1
        x = self.embed(input_ids) + self.place[torch.arange(5, device=self.place.device)]
        seen = attention_mask[:, None, None].bool()
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=seen).squeeze(1)
        x = x + F.linear(F.gelu(self.up(x)), self.down.weight, self.down.bias)
        return F.linear(x, self.embed.weight)


def _transformer():
    torch.manual_seed(0)
    batches = []
    for _ in range(2):
        mask = torch.ones(3, 5, dtype=torch.long)
        mask[0, 3:] = 0
        batches.append({"input_ids": torch.randint(12, (3, 5)), "attention_mask": mask})
    return _Transformer(), batches


@pytest.mark.filterwarnings("ignore::sparsemend.errors.SparsemendWarning")
@pytest.mark.parametrize(
    ("made", "recipe"),
    [
        (_cnn, {"rule": "erk", "repair": "variance+batchnorm"}),
        (_cnn, {"rule": "erk", "repair": "batchnorm-ema"}),
        (_cnn, {"rule": "erk", "mask": "magnitude", "repair": "reconstruct"}),
        (_transformer, {"rule": "uniform", "mask": "activation", "repair": "reconstruct"}),
        (_transformer, {"rule": "uniform", "repair": "variance+distill", "distill": 1}),
    ],
)
def test_same_to_the_bit(device, made, recipe):
    model, batches = made()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = [*model.parameters(), *model.buffers()]
    memory = [tensor.data_ptr() for tensor in tensors]
    expected = sm.compress(model, batches, 0.5, **recipe)
    assert not device.most
    found = sm.compress(model, batches, 0.5, offload=DEVICE, **recipe)
    assert device.most
    assert found.agreement == expected.agreement
    assert dict(found.allocation) == dict(expected.allocation)
    for key, value in expected.model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[key]), key
    kept = [*found.model.parameters(), *found.model.buffers(), *found.masks.values()]
    assert not any(isinstance(tensor, Away) for tensor in kept)
    # The network that was passed is as it was.
    after = [*model.parameters(), *model.buffers()]
    assert all(a is b for a, b in zip(tensors, after, strict=True))
    assert memory == [tensor.data_ptr() for tensor in after]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "work",
    [sm.calibrate, lambda model, batches, **where: sm.agreement(model, model, batches, **where)],
)
def test_what_the_device_holds_does_not_grow_with_the_network(device, work):
    most = []
    for depth in (4, 8):
        model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(depth)))
        device.most = 0
        work(model, [torch.ones(4, 32), torch.ones(2, 32)], offload=DEVICE)
        assert not device.bytes
        most.append(device.most)
    assert most[0] == most[1]
    assert most[0] < sum(parameter.nbytes for parameter in model.parameters())


class _Twice(nn.Module):
    """Its layer runs twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


@pytest.mark.usefixtures("device")
def test_moments_are_those_of_one_pass():
    model, batches = _Twice(), [torch.randn(4, 6), torch.randn(3, 6)]
    expected = sm.calibrate(model, batches)
    found = sm.calibrate(model, iter(batches), offload=DEVICE)
    assert found.inputs == expected.inputs == 7
    for name, moments in expected.moments.items():
        assert found.moments[name].count == moments.count == 14
        torch.testing.assert_close(found.moments[name].scatter, moments.scatter)
        assert not isinstance(found.moments[name].scatter, Away)


@pytest.mark.usefixtures("device")
def test_changes_reach_the_originals():
    total, statistics = torch.zeros(3), (torch.zeros(3), torch.ones(3))
    with offloading(DEVICE), evaluation_mode():
        x = lent(torch.randn(8, 3))
        total += x[0]
        total[1] = x[1, 1] * 0
        assert F.batch_norm(x, *statistics, training=True).device == DEVICE
        back = torch.zeros(3).copy_(x[0])
    assert all(type(tensor) is torch.Tensor for tensor in (total, *statistics, back))
    assert torch.equal(total[[0, 2]], back[[0, 2]])
    assert total[1] == 0
    assert statistics[0].any()


@pytest.mark.usefixtures("device")
def test_gradients_are_where_the_weights_are():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    with offloading(DEVICE, layer), evaluation_mode(layer), torch.enable_grad():
        loss = call(layer, x).square().sum()
        assert loss.device == DEVICE
        (by_hand,) = torch.autograd.grad(loss, [layer.weight], retain_graph=True)
        loss.backward()
    found, layer.weight.grad = layer.weight.grad, None
    layer(x).square().sum().backward()
    assert torch.equal(found, layer.weight.grad)
    assert torch.equal(by_hand, layer.weight.grad)


@pytest.mark.usefixtures("device")
def test_a_parameter_says_where_it_computes():
    layer = nn.Linear(3, 2)
    assert device_for(layer.weight) == torch.device("cpu")
    with offloading(DEVICE, layer):
        assert device_for(layer.weight) == DEVICE
        with evaluation_mode(layer):
            assert layer.weight.device == DEVICE
            assert layer.weight.detach().device == torch.device("cpu")
        assert layer.weight.device == torch.device("cpu")
        assert type(returned(lent(torch.ones(2)))) is torch.Tensor


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_error(error):
    class Broken(nn.Module):
        def forward(self, x):
            raise error(x.shape)

    model = nn.Sequential(nn.Linear(3, 3), Broken())
    with pytest.raises((error, sm.SparsemendError)):
        sm.calibrate(model, [torch.randn(4, 3)], offload=DEVICE)
    assert not torch._C._len_torch_function_stack()
    assert not model[0]._forward_pre_hooks
    assert device_for(model[0].weight) == model[0].weight.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("offload", "text"),
    [
        ("abacus", "offload is no device of this machine"),
        ("xpu:7", "offload is no device of this machine"),
        ("cpu", "offload is where the network lies already: got 'cpu'"),
        (torch.device("meta"), "offload holds no values: got 'meta'"),
        (1, "offload is of the wrong kind"),
    ],
)
def test_bad_devices(offload, text):
    def batches():
        raise AssertionError("this is work")
        yield

    model = nn.Linear(3, 2)
    for verb in (partial(sm.compress, sparsity=0.5), sm.calibrate, sm.evaluate, sm.perplexity):
        with pytest.raises(sm.SparsemendError, match=text):
            verb(
                model,
                batches(),
                offload=offload,
                **({"rule": {"": 0.5}} if verb is sm.compress else {}),
            )


@pytest.mark.usefixtures("device")
def test_network_elsewhere():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(sm.SparsemendError, match=r"main memory, but '1\.weight'.*got 'meta'"):
        sm.calibrate(model, [torch.randn(4, 3)], offload=DEVICE)
