"""The default: as much as fits into a time, done again exactly by its plan."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from tests.repairs.networks import conv_bn, images

import sparsemend as sm
from sparsemend.execution.batches import count_inputs, first_inputs
from sparsemend.finite import NotFiniteError
from sparsemend.layers import count_multiplications
from sparsemend.progress import announcing
from sparsemend.recipe import AUTO, Recipe
from sparsemend.repairs import EFFORTS
from sparsemend.session import Session
from sparsemend.verbs import planning
from sparsemend.verbs.costs import Costs
from sparsemend.verbs.planning import carry_out
from sparsemend.verbs.steps import Step, Training, steps

pytestmark = pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")

SPARSITY = 0.6
# A forward pass takes a second an input, and solving for the layers next to nothing.
SLOW_INPUTS = Costs(forward=1.0, moments=1.0, product=0.0, inversion=0.0)


@pytest.fixture(scope="module")
def model():
    return conv_bn()


@pytest.fixture
def session(model):
    found = Session(model, list(images(64).split(16)), list(images(16, seed=1).split(16)))
    found.check_outputs()
    return found


def quick(rule, inputs=64, seconds=1.0):
    return Step("reconstruct", "quick", inputs, seconds, rule)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------------------- what is planned


def test_what_is_asked_for_is_kept(session):
    one_shot = steps(session, SLOW_INPUTS, Recipe(SPARSITY, scope="one-shot"))
    assert {step.repair for step in one_shot} == {"variance"}
    result = carry_out(session, Recipe(SPARSITY, mask="magnitude"), [quick("erk")])
    assert (result.mask, result.plan.mask) == ("magnitude", "magnitude")


def test_costs_grow_with_inputs_and_effort(session):
    costs = Costs.measure(session)
    layers = list(session.layers)

    def cost(inputs, effort):
        return costs.reconstruction(layers, SPARSITY, inputs, EFFORTS[effort])

    assert 0 < cost(32, "quick") < cost(64, "quick") < cost(64, "full")
    assert 0 < costs.matching(32) < costs.matching(64)


class Fixed(torch.nn.Module):
    """Runs on batches of one size only, as exported networks do."""

    def __init__(self):
        super().__init__()
        self.network = conv_bn()

    def forward(self, x):
        assert len(x) == 16
        return self.network(x)


def test_networks_of_one_batch_size(session):
    fixed = Session(Fixed().eval(), session.seen, session.unseen)
    costs = Costs.measure(fixed)
    assert not costs.cuts
    assert all(s.inputs == 64 for s in steps(fixed, costs, Recipe(SPARSITY), 0.0))
    assert sum(count_multiplications(fixed.model, fixed.layers, session.seen[0]).values()) > 0


def test_first_inputs():
    batches = list(torch.arange(10.0).view(10, 1).split(4))
    for count in (1, 4, 5, 10, 99):
        chosen = first_inputs(batches, count)
        assert count_inputs(chosen) == min(count, 10)
        assert torch.cat(chosen).flatten().tolist() == list(range(min(count, 10)))


# ---------------------------------------------------------------------------- what is done


def test_the_closest_is_kept_and_its_plan_repeats_it(model, session):
    wanted = [quick("erk"), quick("lamp"), Step("reconstruct", "full", 64, 1.0)]
    result = carry_out(session, Recipe(SPARSITY), wanted)
    trials = result.plan.trials
    assert len(trials) == 3
    assert result.agreement.loss == min(trials.values())
    assert result.agreement.loss == min(result.tried.values())
    again = sm.compress(model, session.seen, SPARSITY, heldout=session.unseen, plan=result.plan)
    assert same(again.model, result.model)
    assert again.agreement == result.agreement
    assert again.allocation == result.allocation


def test_fewer_inputs_are_repeated_as_well(model, session):
    result = carry_out(session, Recipe(SPARSITY), [quick("erk", inputs=24)])
    assert result.plan.inputs == 24
    plan = sm.Plan.from_dict(json.loads(json.dumps(result.plan.to_dict())))
    assert plan == result.plan
    again = sm.compress(model, session.seen, SPARSITY, heldout=session.unseen, plan=plan)
    assert same(again.model, result.model)


def test_the_best_is_trained_in_the_time_that_is_left(model, session, monkeypatch):
    monkeypatch.setattr("sparsemend.verbs.steps._STEPS", (10, 10, 60))
    recipe, wanted = Recipe(0.9), [Step("variance", "full", 64, 1.0, "erk")]
    training = Training(each=0.001)
    found = carry_out(session, recipe, wanted, time.perf_counter() + 600, training)
    plain = carry_out(session, recipe, wanted)
    assert found.agreement.loss < plain.agreement.loss
    assert (found.repair, found.plan.distill) == ("variance+distill", 60)
    assert all(torch.equal(found.masks[name], plain.masks[name]) for name in plain.masks)
    again = sm.compress(model, session.seen, 0.9, heldout=session.unseen, plan=found.plan)
    assert same(again.model, found.model)


def test_a_search_that_trains_is_repeated_by_its_plan(model, session):
    wanted = [Step("variance+distill", "full", 64, 1.0, AUTO, "11", 20)]
    found = carry_out(session, Recipe(SPARSITY), wanted)
    assert len(found.search.finals) == 2
    assert (found.repair, found.plan.distill) == ("variance+distill", 20)
    again = sm.compress(model, session.seen, SPARSITY, heldout=session.unseen, plan=found.plan)
    assert same(again.model, found.model)
    assert again.agreement == found.agreement


def test_networks_that_cannot_be_trained_are_not(session):
    class Rounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = conv_bn()

        def forward(self, x):
            return self.network(x).detach()

    rounded = Session(Rounded().eval(), session.seen, session.unseen)
    assert math.isinf(planning._measured(rounded).each)
    assert 0 < planning._measured(session).each < 1


def test_no_step_begins_that_would_end_too_late(session):
    result = carry_out(session, Recipe(SPARSITY), [quick("erk"), quick("lamp")], deadline=0.0)
    assert list(result.plan.trials) == ["erk"]


def test_an_interrupt_keeps_the_best_so_far(session, monkeypatch):
    run, calls = planning.run_recipe, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(planning, "run_recipe", interrupted)
    result = carry_out(session, Recipe(SPARSITY), [quick("erk"), quick("lamp"), quick("global")])
    assert (list(result.plan.trials), len(calls)) == (["erk"], 2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(session, Recipe(SPARSITY), [quick("erk")])


def test_an_interrupt_of_a_training_ends_all_of_it(session, monkeypatch, capsys):
    from sparsemend.repairs.distillation import loop

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_shape", interrupted)
    trained = Step("variance+distill", "full", 64, 1.0, "erk", distill=20)
    with announcing():
        result = carry_out(session, Recipe(SPARSITY), [trained, quick("lamp")])
        assert list(result.plan.trials) == ["erk"]
        assert "interrupted: the best so far is kept" in capsys.readouterr().err
        # So does one that comes while the time of a step is measured.
        training, deadline = Training(each=0.001), time.perf_counter() + 600
        plain = Step("variance", "full", 64, 1.0, "erk")
        result = carry_out(session, Recipe(SPARSITY), [plain], deadline, training)
        assert (result.repair, result.plan.distill) == ("variance", None)
        assert "interrupted: the best so far is kept" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        planning.step_seconds(session)


def test_a_step_that_overflows_is_left_out(session, monkeypatch):
    run = planning.run_recipe

    def overflowing(session, recipe, **kwargs):
        if recipe.rule == "erk":
            raise NotFiniteError("numbers are not finite")
        return run(session, recipe, **kwargs)

    monkeypatch.setattr(planning, "run_recipe", overflowing)
    result = carry_out(session, Recipe(SPARSITY), [quick("erk"), quick("lamp")])
    assert list(result.plan.trials) == ["lamp"]
    with pytest.raises(NotFiniteError):
        carry_out(session, Recipe(SPARSITY), [quick("erk")])


# ---------------------------------------------------------------------------- from outside


def test_compress_says_what_it_will_do(model, session, monkeypatch, capsys):
    monkeypatch.setattr(Costs, "measure", lambda _: SLOW_INPUTS)
    with announcing():
        result = sm.compress(
            model, session.seen, SPARSITY, heldout=session.unseen, budget="5min", progress=False
        )
    said = capsys.readouterr().err
    assert said.startswith("plan for 5 min: ")
    assert result.plan.note == said.strip()
    assert result.to_dict()["plan"]["inputs"] == result.plan.inputs
    assert sum(result.multiplications.values()) > 0


def test_a_number_of_repairs_is_a_search():
    planned, searched = (Recipe(SPARSITY, budget=budget) for budget in ("10min", 3))
    assert planned.planned
    assert (searched.planned, searched.rule, searched.repair) == (False, AUTO, "best")
    assert Recipe(SPARSITY, "erk").repair == "best"
    assert Recipe(SPARSITY, repair="variance").rule == AUTO
    assert Recipe(SPARSITY).limit.seconds == 600
    assert math.isinf(Recipe(SPARSITY, "auto").limit.seconds)
    with pytest.raises(sm.SparsemendError, match="budget is not understood: got 0; allowed: a pos"):
        Recipe(SPARSITY, budget=0)


def test_in_place(session, monkeypatch):
    monkeypatch.setattr(Costs, "measure", lambda _: SLOW_INPUTS)
    model = conv_bn()
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = sm.compress(
        model, session.seen, SPARSITY, heldout=session.unseen, budget="5min", inplace=True
    )
    assert result.model is model
    assert any(not torch.equal(dense[name], now) for name, now in model.state_dict().items())


def test_files_that_are_no_plan(tmp_path):
    path = tmp_path / "plan.json"
    for content, text in (
        ("{", "cannot be read"),
        ("[]", "no plan in it"),
        ("{}", "is no plan"),
    ):
        path.write_text(content)
        with pytest.raises(sm.SparsemendError, match=text):
            sm.Plan.load(path)


def test_multiplications():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, groups=1), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)
    )
    found = count_multiplications(model, sm.discover(model), torch.zeros(7, 3, 8, 8))
    assert found == {"0": 36 * 4 * 27, "2": 5 * 4 * 36}


def test_notebooks_show_a_table(session):
    result = carry_out(session, Recipe(SPARSITY), [quick("erk")])
    shown = result._repr_html_()
    assert shown.count("<tr>") >= 4
    assert shown.count("<rect") == len(result.allocation)
    assert "59.99 %" in shown
    page = sm.report(result)._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "<script" not in page
