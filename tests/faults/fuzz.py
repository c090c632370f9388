"""Random networks, compressed in random ways, and what must hold of every one.

python -m tests.faults.fuzz --seconds 1800 --seed 20261126: trials from this seed on, for so long.
Each has a seed of its own, which is all that it depends on; one that fails says it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tests.diagnosis import direct
from tests.faults.conftest import nothing_changes
from torch import Tensor, nn

import sparsemend as sm
from sparsemend.allocation import RULES
from sparsemend.allocation.budget import kept_total
from sparsemend.errors import SparsemendWarning
from sparsemend.layers import LayerSet, layer_weight, weight_matrix
from sparsemend.operators import OPERATORS
from sparsemend.repairs import SCOPES

REPAIRS = (
    *OPERATORS,
    *(f"{name}+batchnorm" for name in OPERATORS if name != "none"),
    *("batchnorm", "batchnorm-ema", "reconstruct", "reconstruct+batchnorm", "best"),
)
PATTERNS = ("2:4", "1:3", "n:4", "block:1x4", "block:2x2", "channel")
SPARSITIES = (0.0, 0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.GELU, nn.LeakyReLU, nn.Sigmoid, nn.Identity, nn.Hardswish,
)  # fmt: skip


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Last(nn.Module):
    """The last step of a recurrent layer's outputs [N, T, D]."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0][:, -1]


class Mean(nn.Module):
    """The mean over the steps of [N, T, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def convolutional(r: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    """Convolutions of one, two or three dimensions, and a classifier."""
    dims = r.choice((1, 2, 2, 2, 3))
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    channels = first = r.choice((1, 2, 3))
    layers: list[nn.Module] = []
    for _ in range(r.randint(1, 3)):
        width = r.choice((2, 4, 6))
        kernel = r.choice((1, 3, 3))
        grouped = r.random() < 0.2 and width % channels == 0
        layers.append(
            conv(
                channels, width, kernel,
                stride=r.choice((1, 1, 2)), padding=kernel // 2, bias=r.random() < 0.5,
                groups=channels if grouped else 1,
                padding_mode=r.choice(("zeros", "zeros", "zeros", "circular")),
            )
            if r.random() < 0.85
            else transposed(channels, width, kernel, padding=kernel // 2, bias=r.random() < 0.5)
        )  # fmt: skip
        channels = width
        if r.random() < 0.6:
            layers.append(r.choice((norm(width), norm(width), nn.GroupNorm(2, width))))
        layers.append(r.choice(ACTIVATIONS)())
        if r.random() < 0.3:
            inner = [conv(width, width, 3, padding=1, bias=False), norm(width), nn.ReLU()]
            layers.append(Residual(nn.Sequential(*inner[: r.randint(1, 3)])))
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
    size = 6 if dims < 3 else 4
    layers += [pool(1), nn.Flatten(), nn.Linear(channels, r.choice((1, 2, 5)))]
    return nn.Sequential(*layers), (first, *[size] * dims)


def dense(r: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    """Linear layers, some of them tied or called twice."""
    width = first = r.choice((3, 8, 12))
    layers: list[nn.Module] = []
    for _ in range(r.randint(1, 4)):
        wider = r.choice((4, 8, 16))
        layers.append(nn.Linear(width, wider, bias=r.random() < 0.6))
        width = wider
        if r.random() < 0.5:
            layers.append(r.choice((nn.BatchNorm1d(width), nn.LayerNorm(width))))
        layers.append(r.choice(ACTIVATIONS)())
        if r.random() < 0.2:
            square = nn.Linear(width, width)
            layers += [square, nn.Tanh(), square]
        if r.random() < 0.2:
            layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.Linear(width, r.choice((1, 3)))), (first,)


def sequential(r: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    """Attention or recurrence over [N, T, D]."""
    width = 8
    body: nn.Module
    if r.random() < 0.5:
        body = nn.Sequential(
            nn.TransformerEncoderLayer(
                width, 2, 12, batch_first=True, norm_first=r.random() < 0.5, dropout=0.1
            ),
            Mean(),
        )
    else:
        kind = r.choice((nn.LSTM, nn.GRU, nn.RNN))
        body = Last(kind(width, width, batch_first=True, bidirectional=False))
    return nn.Sequential(body, nn.Linear(width, 3)), (5, width)


def spoil(model: nn.Module, r: random.Random) -> None:
    """Weights of any size, channels that are dead, numbers that are equal."""
    with torch.no_grad():
        for parameter in model.parameters():
            chance = r.random()
            if chance < 0.06:
                parameter.mul_(r.choice((1e-20, 1e-6, 1e3, 1e6)))
            elif chance < 0.1:
                parameter[0] = 0
            elif chance < 0.12:
                parameter.zero_()
            elif chance < 0.14:
                parameter.copy_(parameter.round(decimals=1))


class Trial:
    """One network, its inputs and what is done to it, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = r = random.Random(seed)
        torch.manual_seed(seed)
        self.model, shape = r.choice((convolutional, convolutional, dense, sequential))(r)
        with torch.no_grad():
            self.model(torch.randn(8, *shape))  # statistics of their own
        self.model.train(r.random() < 0.2)
        if r.random() < 0.3:
            spoil(self.model, r)
        if r.random() < 0.2:
            next(self.model.parameters()).requires_grad_(False)
        inputs = torch.randn(r.choice((1, 3, 16, 40)), *shape)
        if r.random() < 0.2:
            inputs = inputs * r.choice((1e-6, 1e3)) + r.choice((0, 100))
        if r.random() < 0.15:
            self.model.to(r.choice((torch.float64, torch.float64, torch.bfloat16)))
        self.batches = list(inputs.split(r.choice((1, 8, 40))))
        normalised = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules()
        )
        repair = r.choice([x for x in REPAIRS if normalised or "batchnorm" not in x])
        refits = repair.startswith(("reconstruct", "best"))
        self.recipe: dict[str, Any] = {
            "sparsity": r.choice(SPARSITIES) if r.random() < 0.8 else round(r.random(), 4),
            "rule": r.choice((*RULES, "auto")) if r.random() < 0.1 else r.choice(tuple(RULES)),
            "repair": repair,
            "mask": r.choice((None, "magnitude", "activation", *["gradual"] * refits)),
            "scope": "sequential" if refits else r.choice(SCOPES),
            "new_biases": r.random() < 0.3,
        }
        if self.recipe["rule"] == "auto":
            self.recipe["budget"] = 2
        if r.random() < 0.25:
            self.recipe["pattern"] = r.choice(PATTERNS)
        if r.random() < 0.1:
            self.recipe["target_flops"] = r.choice((0.05, 0.3, 1.0))
        if self.pattern[0].isdigit():
            self.recipe["rule"] = "uniform"
            for said in ("target_flops", "budget"):
                self.recipe.pop(said, None)
        if self.pattern[0].isdigit() or "target_flops" in self.recipe:
            del self.recipe["sparsity"]  # it is said otherwise

    @property
    def pattern(self) -> str:
        """Which weights can be kept."""
        found: str = self.recipe.get("pattern", "free")
        return found

    def run(self) -> str:
        """Compress, and check all that must hold; returns what came of it."""
        generator = torch.get_rng_state()
        with warnings.catch_warnings(), nothing_changes(self.model, folders=()):
            warnings.simplefilter("ignore", SparsemendWarning)
            warnings.simplefilter("ignore", UserWarning)
            try:
                result = sm.compress(self.model, self.batches, progress=False, **self.recipe)
            except sm.SparsemendError as error:
                check_refusal(error)
                return "refused"
            self.check(result)
            if self.random.random() < 0.3:
                again = sm.compress(self.model, self.batches, progress=False, **self.recipe)
                self.check_same(result, again)
            if self.random.random() < 0.5:
                self.check_diagnosis()
        torch.set_rng_state(generator)
        return "compressed"

    def check(self, result: sm.CompressionResult) -> None:
        """Counts, zeros, finite numbers, and that it loads."""
        assert result.layers is not None
        self.check_budget(result, result.layers)
        for layer in result.layers:
            weight, mask = layer_weight(result.model, layer), result.masks[layer.name]
            assert int(mask.sum()) == result.allocation[layer.name], layer.name
            pruned = weight[~mask]
            assert bool((pruned == 0).all()), layer.name
            assert not bool(pruned.signbit().any()), f"-0 in {layer.name}"
            assert layer.structure.holds(weight_matrix(mask, layer)), layer.name
        for key, value in result.model.state_dict().items():
            assert bool(value.isfinite().all()), key
        assert np.isfinite(result.agreement.loss)
        plain = copy.deepcopy(self.model)
        if result.added_biases:
            assert self.recipe["new_biases"]
            return
        plain.load_state_dict(result.model.state_dict(), strict=True)
        x = self.batches[0].to(next(plain.parameters()).dtype)
        with torch.no_grad():
            assert torch.equal(plain.eval()(x), copy.deepcopy(result.model).eval()(x))

    def check_budget(self, result: sm.CompressionResult, layers: LayerSet) -> None:
        """Exactly what was asked for, or what whole units allow that is nearest."""
        if "target_flops" in self.recipe:
            assert result.reached is not None
            assert result.reached <= self.recipe["target_flops"]
        elif "sparsity" in self.recipe:
            wanted = kept_total(self.recipe["sparsity"], sum(layer.size for layer in layers))
            unit = max(layer.structure.least for layer in layers)
            assert abs(result.allocation.kept - wanted) < unit

    def check_same(self, one: sm.CompressionResult, other: sm.CompressionResult) -> None:
        assert dict(one.allocation) == dict(other.allocation)
        theirs = other.model.state_dict()
        for key, value in one.model.state_dict().items():
            assert torch.equal(value, theirs[key]), f"{key} of another run"
        assert one.agreement == other.agreement

    def check_diagnosis(self) -> None:
        """The closed form against a forward pass of the pruned layer."""
        repair = self.random.choice([name for name in OPERATORS if name != "none"])
        try:
            calibration = sm.calibrate(self.model, self.batches, progress=False)
            found = sm.diagnose(self.model, calibration, repair, progress=False)
        except sm.SparsemendError as error:
            check_refusal(error)
            return
        if next(self.model.parameters()).dtype == torch.bfloat16:
            return  # whose inputs of layers are rounded
        model = copy.deepcopy(self.model).double().eval()
        once = [x.name for x in calibration.layers if x.is_module and x.calls == 1]
        inputs = direct.layer_inputs(
            model, calibration.layers.only(once, ""), torch.cat(self.batches).double()
        )
        # Attention uses its output projection without calling it.
        candidates = [name for name in inputs if name not in found.left_out]
        if not candidates:
            return
        name = self.random.choice(candidates)
        module = model.get_submodule(name)
        weight = module.weight.detach().numpy()
        k = self.random.randrange(len(found.densities) - 1)
        count = direct.count_at(found.densities[k], weight.size)
        z = direct.outputs(module, weight, inputs[name])
        pruned = direct.outputs(module, next(direct.largest(weight, [count])), inputs[name])
        variance = z.var(axis=0)
        if variance.min() < 1e-6 * max(1e-30, variance.max()):
            return
        if (variance < 1e-7 * np.square(z).mean(axis=0)).any():
            return  # so little varies that the network's own rounding of the inputs shows
        row = found.layers.index(name)
        raw = (direct.damage("none", z, pruned) / variance).mean()
        left = (direct.damage(repair, z, pruned) / variance).mean()
        said = f"{name} at {found.densities[k]} after {repair}"
        np.testing.assert_allclose(found.raw[row, k], raw, rtol=1e-3, atol=1e-6, err_msg=said)
        np.testing.assert_allclose(found.residual[row, k], left, rtol=1e-3, atol=1e-6, err_msg=said)


def check_refusal(error: sm.SparsemendError) -> None:
    """A refusal is meant: nothing broke that was only reported."""
    if " failed: " in str(error):
        raise AssertionError(str(error)) from error


def fuzz(seed: int, seconds: float) -> Counter[str]:
    """Trials from a seed on, as many as the time allows, at least one."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for number in itertools.count(seed):
        trial = Trial(number)
        try:
            outcomes[trial.run()] += 1
        except Exception as error:
            error.add_note(
                f"{trial.recipe}\n{trial.model}\n"
                f"again: python -m tests.faults.fuzz --seed {number} --seconds 0"
            )
            raise
        if time.monotonic() >= end:
            return outcomes
    raise AssertionError("there is no end of numbers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(dict(fuzz(arguments.seed, arguments.seconds)))


if __name__ == "__main__":
    main()
