"""The house takes new parts: one record and one registry entry each, as CONTRIBUTING.md says.

The parts of this file are entered for the time of a test, and have to work everywhere at once.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.repairs.networks import conv_bn, images
from typer.testing import CliRunner

import sparsemend as sm
import sparsemend.cli
from sparsemend.allocation import RULES
from sparsemend.allocation.budget import round_to_budget, water_fill
from sparsemend.allocation.rule import Rule
from sparsemend.execution.batches import call
from sparsemend.masks import MASKS, MaskRule
from sparsemend.operators import OPERATORS
from sparsemend.operators.operator import Operator, matching_scale
from sparsemend.repairs import REPAIRS, Outcome
from sparsemend.repairs.repair import Repair
from sparsemend.reports import Compression, other_rules
from sparsemend.reports.drawing.palette import series_style
from sparsemend.solvers.ranking import descending_rank, keep_mask

pytestmark = pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")

SPARSITY = 0.6
MODEL = "tests.repairs.networks:conv_bn"

# An allocation rule that reads the diagnosis.


def by_residual(problem):
    """Density in proportion to the damage that is left after repair at the density asked for."""
    densities, residual = problem.curves("residual", rule="by-residual")
    at = (float(np.interp(1 - problem.sparsity, densities, curve)) for curve in residual)
    shares = [Fraction(max(share, 1e-6)) for share in at]
    filled = water_fill(shares, problem.sizes, problem.keep)
    return round_to_budget(filled, problem.sizes, problem.keep)


BY_RESIDUAL = Rule("by-residual", by_residual, needs="diagnosis", colour="sky")

# Mask rules that read moments: by a score, and by a choice that is not known to be nested.


def spread(problem):
    """|w_ij| · std(x_j), compared over the whole layer."""
    variance = problem.moments.column_square - problem.moments.mean.square()
    std = variance.clamp_min(0).sqrt().to(problem.weight.dtype)
    return problem.weight.abs() * std.unsqueeze(1)


def choose_spread(problem, kept):
    return keep_mask(descending_rank(spread(problem)), kept)


SPREAD = MaskRule("spread", needs="moments", score=spread)
CHOSEN_SPREAD = MaskRule("chosen-spread", needs="moments", choose=choose_spread)

# One that chooses together with a repair that refits: the layer's targets in units of its inputs.
FITTED = MaskRule("fitted", needs="fit", score=lambda problem: problem.fit.target.abs())

# An operator.


def halfway(statistics):
    """Half of the way from no scale to that which matches variances."""
    return (1 + matching_scale(statistics.dense_variance, statistics.pruned_variance)) / 2


HALFWAY = Operator("halfway", halfway, ending=True)

# A repair with a way of its own.


def shift_last(session, network, terms):
    """Let the mean outputs be those of the dense network, by the bias of the last layer."""
    last = network.get_submodule(list(session.layers)[-1].name)
    with torch.no_grad():
        dense, pruned = (
            torch.cat([call(model, batch) for batch in session.seen]).mean(dim=0)
            for model in (session.model, network)
        )
        last.bias.add_(dense - pruned)
    return Outcome(terms.support.masks)


LAST_SHIFT = Repair("last-shift", shift_last, ending=lambda _: True)

REPAIR_NAMES = ("halfway", "last-shift", "halfway+batchnorm", "last-shift+batchnorm")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(RULES, BY_RESIDUAL.name, BY_RESIDUAL)
    for mask in (SPREAD, CHOSEN_SPREAD, FITTED):
        monkeypatch.setitem(MASKS, mask.name, mask)
    monkeypatch.setitem(OPERATORS, HALFWAY.name, HALFWAY)
    monkeypatch.setitem(REPAIRS, LAST_SHIFT.name, LAST_SHIFT)


@pytest.fixture(scope="module")
def model():
    return conv_bn()


@pytest.fixture(scope="module")
def batches():
    return list(images(48).split(12))


@pytest.fixture(scope="module")
def heldout():
    return list(images(24, seed=1).split(12))


def mean_outputs(model, batches):
    with torch.no_grad():
        return torch.cat([model(batch) for batch in batches]).mean(dim=0)


@pytest.mark.parametrize("repair", REPAIR_NAMES)
@pytest.mark.parametrize("mask", ["magnitude", "spread", "chosen-spread"])
def test_compress(model, batches, mask, repair):
    result = sm.compress(model, batches, SPARSITY, "by-residual", mask, repair)
    assert (result.rule, result.mask, result.repair) == ("by-residual", mask, repair)
    assert result.diagnosis.mask == mask
    for name, kept in result.allocation.items():
        assert int(result.masks[name].sum()) == kept
        assert not result.model.get_submodule(name).weight[~result.masks[name]].any()
    if repair == "last-shift":
        found, wanted = mean_outputs(result.model, batches), mean_outputs(model, batches)
        torch.testing.assert_close(found, wanted)


def test_compress_in_one_shot(model, batches):
    for repair in ("halfway", "last-shift"):
        result = sm.compress(
            model, batches, SPARSITY, "by-residual", "spread", repair, scope="one-shot"
        )
        assert result.scope == "one-shot"


def test_the_mask_goes_with_a_repair_that_refits(model, batches):
    result = sm.compress(model, batches, SPARSITY, "by-residual", "spread", "reconstruct")
    calibration = sm.calibrate(model, batches)
    pruned = sm.prune(model, result.allocation, "spread", calibration=calibration)
    masks = sm.find_masks(pruned)
    assert all(torch.equal(masks[name], mask) for name, mask in result.masks.items())


def test_a_mask_that_needs_the_fit(model, batches, heldout):
    result = sm.compress(model, batches, SPARSITY, "by-residual", "fitted", "reconstruct")
    assert (result.mask, result.diagnosis.mask) == ("fitted", "fitted")
    assert {name: int(mask.sum()) for name, mask in result.masks.items()} == result.allocation
    best = sm.compress(model, batches, SPARSITY, "erk", "fitted", "best", heldout=heldout)
    assert best.tried.keys() >= {"reconstruct", "reconstruct+batchnorm"}
    with pytest.raises(sm.SparsemendError, match="mask 'fitted' is chosen jointly"):
        sm.compress(model, batches, SPARSITY, "erk", "fitted", "halfway")


def test_prune_by_a_score_or_a_choice(model, batches):
    calibration = sm.calibrate(model, batches)
    allocation = sm.allocate(model, SPARSITY, "erk")
    by_score, by_choice = (
        sm.find_masks(sm.prune(model, allocation, mask, calibration=calibration))
        for mask in ("spread", "chosen-spread")
    )
    assert all(torch.equal(by_score[name], by_choice[name]) for name in allocation)
    with pytest.raises(sm.SparsemendError, match="mask 'spread' needs the inputs' second moments"):
        sm.prune(model, allocation, "spread")


def test_diagnose(model, batches):
    calibration = sm.calibrate(model, batches)
    found = {
        (repair, mask): sm.diagnose(model, calibration, repair, mask=mask)
        for repair in ("mean", "variance", "halfway", "last-shift")
        for mask in ("spread", "chosen-spread")
    }
    for repair in ("mean", "variance", "halfway", "last-shift"):
        one, other = found[repair, "spread"], found[repair, "chosen-spread"]
        np.testing.assert_allclose(one.residual, other.residual, rtol=1e-6, atol=1e-9)
    halfway = found["halfway", "spread"]
    assert halfway.repair == "halfway"
    # The damage is convex in the scale.
    ends = (found["mean", "spread"].residual + found["variance", "spread"].residual) / 2
    assert (halfway.residual <= ends + 1e-9).all()
    # What has no residual is diagnosed as another repair says.
    shifted = found["last-shift", "spread"]
    assert shifted.repair == "variance"
    np.testing.assert_array_equal(shifted.residual, found["variance", "spread"].residual)
    assert sm.diagnose(model, calibration, "halfway+batchnorm").repair == "halfway"


@pytest.mark.parametrize("repair", ["halfway", "last-shift"])
def test_rule_auto(model, batches, heldout, repair):
    result = sm.compress(
        model, batches, SPARSITY, "auto", "spread", repair, heldout=heldout, budget=24
    )
    assert "by-residual" in result.search.plain
    assert result.diagnosis.mask == "spread"
    assert result.diagnosis.repair == ("halfway" if repair == "halfway" else "variance")
    # It is not known what the other restores, so there are no slopes to follow.
    downhill = any("downhill" in trial.name for trial in result.search.trials)
    assert downhill == (repair == "halfway")
    assert result.search.repairs > len(result.search.plain)


def test_repair_best_tries_them(model, batches, heldout):
    result = sm.compress(model, batches, SPARSITY, "erk", "magnitude", "best", heldout=heldout)
    assert {"halfway", "last-shift"} <= result.tried.keys()
    for name in ("halfway", "last-shift"):
        alone = sm.compress(model, batches, SPARSITY, "erk", "magnitude", name, heldout=heldout)
        assert alone.agreement.kl == result.tried[name]
    # Where masks are free, only what chooses them is an ending.
    free = sm.compress(model, batches, SPARSITY, "erk", "gradual", "best", heldout=heldout)
    assert not {"halfway", "last-shift"} & free.tried.keys()


def test_sweep(model, batches, heldout, tmp_path):
    store = tmp_path / "s.sqlite"
    rules, masks, repairs = ("by-residual", "erk"), ("spread", "chosen-spread"), REPAIR_NAMES[:2]
    options = {"rules": rules, "masks": masks, "repairs": repairs, "heldout": heldout}
    result = sm.sweep({"net": model}, batches, SPARSITY, store=store, **options)
    assert not result.failures
    cells = {(r.cell.rule, r.cell.mask, r.cell.repair) for r in result.records}
    assert cells == set(itertools.product(rules, masks, repairs))
    assert sm.SweepResult.load(store).records == result.records
    again = sm.sweep({"net": model}, batches, SPARSITY, store=store, dry_run=True, **options)
    assert not again.pending
    assert "by-residual" in sm.report(result).html()


def test_report(model, batches):
    result = sm.compress(model, batches, SPARSITY, "by-residual", "spread", "last-shift")
    others = other_rules(model, result.allocation, diagnosis=result.diagnosis)
    style = series_style([result.rule, *(other.rule for other in others)])
    assert style["by-residual"][0] == BY_RESIDUAL.colour
    drawn = f"var(--{BY_RESIDUAL.colour})"
    page = sm.report(Compression.of(result), result.diagnosis, *others).html()
    assert all(name in page for name in ("by-residual", "spread", "last-shift", drawn))
    assert drawn not in sm.report(*others).html()
    # Beside the result of another rule, where there is a diagnosis.
    plain = sm.allocate(model, SPARSITY, "erk", layers=sm.calibrate(model, batches).layers)
    named = [other.rule for other in other_rules(model, plain, diagnosis=result.diagnosis)]
    assert "by-residual" in named


@pytest.fixture
def arrays(tmp_path):
    """Images and labels in a file that the command line reads."""
    path = tmp_path / "images.npz"
    pixels = np.random.default_rng(0).random((64, 4, 5, 5), dtype=np.float32)
    labels = np.arange(64) % 5
    split = {"x_train": pixels[:48], "y_train": labels[:48], "x_test": pixels[48:]}
    np.savez(path, **split, y_test=labels[48:])
    return path


@pytest.fixture
def run(monkeypatch):
    """A command, of an app that is made now, with the parts of the tests."""
    monkeypatch.setenv("COLUMNS", "200")
    app = sparsemend.cli.make_app()

    def read(*arguments):
        result = CliRunner().invoke(app, [str(part) for part in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    return read


def test_command_line(run, arrays, tmp_path):
    sizes = ("--calibration-size", 32, "--heldout-size", 16, "--batch-size", 16)
    source = ("--model", MODEL, "--data", arrays)
    parts = ("--rule", "by-residual", "--mask", "spread", "--repair", "last-shift")
    page = tmp_path / "page.html"
    shown = run("compress", *source, *sizes, "--sparsity", SPARSITY, *parts, "--report", page)
    assert all(name in shown for name in ("by-residual", "spread", "last-shift"))
    assert "by-residual" in page.read_text(encoding="utf-8")
    out = tmp_path / "diagnosis.json"
    run("diagnose", *source, *sizes[:2], "--mask", "spread", "--repair", "halfway", "--out", out)
    found = sm.Diagnosis.load(out)
    assert (found.mask, found.repair) == ("spread", "halfway")
    allocated = ("--sparsity", SPARSITY, "--rule", "by-residual", "--diagnosis", out)
    assert "by-residual" in run("allocate", "--model", MODEL, *allocated)
    grid = ("--sparsity", SPARSITY, "--rule", "by-residual", "--mask", "spread")
    store = tmp_path / "s.sqlite"
    run("sweep", *source, *sizes, *grid, "--repair", "halfway", "--store", store)
    assert [r.cell.rule for r in sm.SweepResult.load(store).records] == ["by-residual"]


def test_help_names_them(run):
    shown = run("compress", "--help")
    for name in ("by-residual", "spread", "fitted", "halfway", "last-shift"):
        assert name in shown
