"""Calibration in two real processes against one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import sparsemend as sm
from sparsemend.calibration import WideLayerMoments
from sparsemend.diagnosis import diagnose
from sparsemend.errors import SparsemendError

LIMIT = 1200


class Network(nn.Module):
    """Layers of every kind: summed, held, too wide, and one that some processes never feed."""

    def __init__(self, classes=5):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, groups=2)
        self.held = nn.Linear(8 * 12 * 12, 12)  # fan-in 1152, more than there are inputs
        self.wide = nn.Linear(3 * 26 * 26, 4)  # fan-in 2028, above the limit
        self.rare = nn.Linear(12, 12)
        self.last = nn.Linear(16, classes)

    def forward(self, x):
        h = torch.relu(self.grouped(torch.relu(self.norm(self.first(x)))))
        h = torch.relu(self.held(h.flatten(1)))
        often = x.mean(dim=(1, 2, 3)) < 1
        routed = torch.zeros_like(h).masked_scatter(~often.unsqueeze(1), self.rare(h[~often]))
        return self.last(torch.cat([h + routed, self.wide(x.flatten(1))], dim=1))


def make(classes=5):
    torch.manual_seed(0)
    return Network(classes).eval()


def make_inputs():
    x = torch.randn(24, 3, 26, 26, generator=torch.Generator().manual_seed(1)) + 0.3
    x[16:] += 2  # only these, which one process sees, reach the rare layer
    return x


def tensors(calibration):
    """Everything in a calibration, by name."""
    found = {"inputs": torch.tensor(calibration.inputs)}
    for name, moments in calibration.moments.items():
        parts = {"": moments}
        if isinstance(moments, WideLayerMoments):
            paired = moments.outputs
            parts = {
                "columns": moments.columns,
                "dense": paired.dense,
                "pruned": paired.pruned,
                "error": paired.error,
            }
        for part, value in parts.items():
            found[f"{name} {part} count"] = torch.tensor(value.count)
            found[f"{name} {part} mean"] = value.mean
            found[f"{name} {part} scatter"] = value.scatter
    return found


def text_of(error):
    with pytest.raises(SparsemendError) as info:
        error()
    return str(info.value)


def work(rank, folder):
    """What each of two processes does; results go to files."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    share = make_inputs()[:10] if rank == 0 else make_inputs()[10:]

    def run(model=None, batches=None, **options):
        model = make() if model is None else model
        batches = share.split(6) if batches is None else batches
        options = {"max_fan_in": LIMIT, "distributed": True} | options
        return sm.calibrate(model, batches, progress=False, **options)

    other = (nn.Linear(8, 3), [torch.ones(2, 8)]) if rank else ()

    pooled = run()
    later = run(distributed=False)
    later.all_reduce()
    errors = {
        "networks": text_of(lambda: run(make(5 + rank))),
        "layers": text_of(lambda: run(*other)),
        "limit": text_of(lambda: run(max_fan_in=LIMIT + 1000 * rank)),
        "grid": text_of(lambda: run(densities=[0.1 + rank / 2, 1])),
        "failure": text_of(lambda: run(batches=[] if rank else share)),
    }
    unchanged = run(make(5 + rank), distributed=False)
    tensors(unchanged)  # forms the sums of what is held
    before = {name: value.clone() for name, value in tensors(unchanged).items()}
    text_of(unchanged.all_reduce)
    after = tensors(unchanged)
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.save(
        {"pooled": tensors(pooled), "later": tensors(later), "errors": errors},
        f"{folder}/{rank}.pt",
    )
    diagnosis = diagnose(make(), pooled, progress=False)
    diagnosis.save(f"{folder}/{rank}.npz")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    return found, [sm.Diagnosis.load(folder / f"{rank}.npz") for rank in (0, 1)]


def alone():
    return sm.calibrate(make(), make_inputs(), max_fan_in=LIMIT, progress=False)


def test_every_process_has_the_moments_of_one_that_saw_everything(results):
    single = alone()
    assert single.moments["held"].held is not None
    assert single.moments["rare"].count == 8
    expected = tensors(single)
    for process in results[0]:
        for way in ("pooled", "later"):
            assert process[way].keys() == expected.keys()
            for name, value in expected.items():
                got = process[way][name]
                assert got.dtype == value.dtype, name
                scale = value.abs().max().item()
                torch.testing.assert_close(got, value, rtol=1e-6, atol=1e-6 * scale, msg=name)


def test_the_diagnosis_is_the_same(results):
    expected = diagnose(make(), alone(), progress=False)
    for found in results[1]:
        torch.testing.assert_close(found.raw, expected.raw, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found.residual, expected.residual, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("networks", "layer 'last' differs"),
        ("layers", "between 1 and 6 layers"),
        ("limit", "layer 'wide' differs"),
        ("grid", "layer 'wide' differs"),
    ],
)
def test_different_calibrations_fail_alike_on_every_process(results, case, words):
    texts = {process["errors"][case] for process in results[0]}
    assert len(texts) == 1
    assert words in texts.pop()


def test_a_failure_on_one_process_stops_the_others(results):
    first, second = (process["errors"]["failure"] for process in results[0])
    assert "calibration failed on another process" in first
    assert "batches is empty" in second


def test_without_a_process_group():
    with pytest.raises(SparsemendError, match=r"no process group.*torchrun"):
        sm.calibrate(make(), make_inputs(), distributed=True, progress=False)
    with pytest.raises(SparsemendError, match="no process group"):
        alone().all_reduce()
