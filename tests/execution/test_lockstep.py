import sys
import threading
from contextlib import closing

import pytest
import torch
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.execution import lockstep as lockstep_module
from sparsemend.execution.lockstep import lockstep, module_stops, pause
from sparsemend.finite import NotFiniteError


class Net(nn.Module):
    """Two layers, each called as often as asked."""

    def __init__(self, forward=None):
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)
        self.b = nn.Linear(2, 2, bias=False)
        self._forward = forward or (lambda m, x: m.b(m.a(x)))

    def forward(self, x):
        return self._forward(self, x)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def runs_of(net, batches, outputs=None):
    """One run per batch, which also keeps its output."""
    outputs = {} if outputs is None else outputs

    def run(index, x):
        outputs[index] = net(x)

    return [lambda i=i, x=x: run(i, x) for i, x in enumerate(batches)]


def stops_of(net):
    return {net.a: "a", net.b: "b"}


def stepping(runs, stops):
    """The pauses of runs that stop at modules."""
    with module_stops(stops):
        yield from lockstep(runs, stops.values())


BATCHES = [torch.full((1, 2), float(i)) for i in range(4)]


def test_pauses_once_per_stop_for_all_runs_in_order():
    net = Net()
    names = []
    for held in stepping(runs_of(net, BATCHES), stops_of(net)):
        names.append(held.name)
        assert list(held.calls) == [0, 1, 2, 3]
        for index, (module, x) in held.calls.items():
            assert module is getattr(net, held.name)
            expected = BATCHES[index] if held.name == "a" else net.a(BATCHES[index])
            assert torch.equal(x, expected)
    assert names == ["a", "b"]
    assert all(not m._forward_pre_hooks for m in net.modules())


def test_weights_changed_at_a_pause_are_used():
    net = Net()
    outputs = {}
    with torch.no_grad():
        for held in stepping(runs_of(net, BATCHES, outputs), stops_of(net)):
            module = held.calls[0][0]
            module.weight.copy_(torch.eye(2) * (2 if held.name == "a" else 5))
            if held.name == "b":  # the next stop already sees the new output
                assert torch.equal(held.calls[3][1], 2 * BATCHES[3])
    for index, x in enumerate(BATCHES):
        assert torch.equal(outputs[index], 10 * x)


def test_models_share_stops_by_name():
    one, two = Net(), Net()
    runs = runs_of(one, BATCHES[:2]) + runs_of(two, BATCHES[:2])
    seen = [
        (held.name, [module for module, _ in held.calls.values()])
        for held in stepping(runs, stops_of(one) | stops_of(two))
    ]
    assert seen == [("a", [one.a, one.a, two.a, two.a]), ("b", [one.b, one.b, two.b, two.b])]


def test_a_module_called_twice_pauses_twice():
    net = Net(lambda m, x: m.a(m.b(m.a(x))))
    assert [p.name for p in stepping(runs_of(net, BATCHES), stops_of(net))] == ["a", "b", "a"]


def early_exit(m, x):
    if x.sum() > 2:
        x = m.a(x)
    return m.b(x)


@pytest.mark.parametrize("order", [1, -1])
def test_batches_may_take_different_paths(order):
    # All runs meet at the later stop, whichever of them skips the earlier one.
    net = Net(early_exit)
    batches = BATCHES[::order]
    taking = [i for i, x in enumerate(batches) if x.sum() > 2]
    seen = [(p.name, list(p.calls)) for p in stepping(runs_of(net, batches), stops_of(net))]
    assert seen == [("a", taking), ("b", [0, 1, 2, 3])]


def test_paths_in_another_order_all_end():
    def either(m, x):
        return m.b(m.a(x)) if x.sum() > 2 else m.a(m.b(x))

    net = Net(either)
    outputs = {}
    seen = [
        (p.name, tuple(p.calls)) for p in stepping(runs_of(net, BATCHES, outputs), stops_of(net))
    ]
    calls = [(name, index) for name, indices in seen for index in indices]
    assert sorted(calls) == [(name, index) for name in "ab" for index in range(4)]
    assert len(outputs) == 4


def test_a_run_that_meets_no_stop_just_ends():
    done = []
    assert list(stepping([lambda: done.append(1)], {Net().a: "a"})) == []
    assert done == [1]
    assert list(stepping([], {})) == []


def test_only_one_run_moves_at_a_time():
    inside, overlaps = [], []

    def slow(m, x):
        for layer in (m.a, m.b):
            x = layer(x)
            overlaps.append(len(inside))
            inside.append(x)
            x = x @ torch.eye(2)
            inside.pop()
        return x

    net = Net(slow)
    for _ in stepping(runs_of(net, BATCHES), stops_of(net)):
        pass
    assert set(overlaps) == {0}


def test_runs_have_no_gradients():
    net, outputs = Net(), {}
    for held in stepping(runs_of(net, BATCHES, outputs), stops_of(net)):
        assert not held.calls[0][1].requires_grad
    assert not any(out.requires_grad for out in outputs.values())


def test_other_threads_may_run_the_model_at_a_pause():
    net = Net()
    for _ in stepping(runs_of(net, BATCHES), stops_of(net)):
        assert net(BATCHES[0]).shape == (1, 2)


def test_outside_of_runs_nothing_stops():
    assert pause("a", None, BATCHES[0]) is None
    net = Net()
    with module_stops(stops_of(net)):
        assert net(BATCHES[0]).shape == (1, 2)
    assert all(not m._forward_pre_hooks for m in net.modules())


def test_what_is_about_to_run_need_not_be_a_module():
    def run(x):
        pause("sum", "carried", x)
        return x.sum()

    runs = [lambda x=x: run(x) for x in BATCHES]
    (only,) = [(p.name, dict(p.calls)) for p in lockstep(runs, ["unused", "sum"])]
    assert only[0] == "sum"
    assert all(only[1][i] == ("carried", x) for i, x in enumerate(BATCHES))


# Leaving


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("error", [KeyError("k"), SparsemendError("s"), KeyboardInterrupt()])
def test_errors_of_the_model_pass(when, error):
    def fails(m, x):
        bad = x.sum() == 4
        for step in ("before", "between", "after"):
            if step == when and bad:
                raise error
            x = m.a(x) if step == "before" else x
            x = m.b(x) if step == "between" else x
        return x

    net = Net(fails)
    with pytest.raises(type(error)) as caught:
        for _ in stepping(runs_of(net, BATCHES), stops_of(net)):
            pass
    assert caught.value is error
    assert all(not m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closing_early_ends_all_runs(taken):
    net, outputs = Net(), {}
    generator = stepping(runs_of(net, BATCHES, outputs), stops_of(net))
    for _ in range(taken):
        next(generator)
    generator.close()
    assert outputs == {}
    assert all(not m._forward_pre_hooks for m in net.modules())


def test_closing_early_ends_models_that_catch_everything():
    def stubborn(m, x):
        try:
            return m.a(x)
        except BaseException:
            return m.b(x)

    net = Net(stubborn)
    generator = stepping(runs_of(net, BATCHES), stops_of(net))
    next(generator)
    closing = threading.Thread(target=generator.close, daemon=True)
    closing.start()
    closing.join(timeout=20)
    assert not closing.is_alive()


def test_a_pause_does_not_keep_tensors_alive():
    net = Net()
    for held in list(stepping(runs_of(net, BATCHES), stops_of(net))):
        assert held.calls == {}


def test_layers_must_be_called_with_a_tensor():
    net = Net(lambda m, x: m.a(input=x))
    with pytest.raises(SparsemendError) as caught:
        next(stepping(runs_of(net, BATCHES), stops_of(net)))
    assert str(caught.value) == (
        "module 'a' is called without a positional tensor; allowed: modules called as module(x)"
    )


def test_inputs_that_are_not_finite_are_named():
    net = Net(lambda m, x: m.b(m.a(x) / 0))
    with pytest.raises(NotFiniteError, match="inputs of layer 'b' are NaN or infinite"):
        list(stepping(runs_of(net, BATCHES), stops_of(net)))
    assert all(not m._forward_pre_hooks for m in net.modules())


def test_a_run_that_has_failed_stops_no_more():
    """Whoever looks for the cause may run the network again, within the run."""
    net, seen = Net(lambda m, x: m.b(m.a(x) / 0)), []

    def run():
        try:
            net(BATCHES[0])
        except NotFiniteError:
            seen.append(net(BATCHES[1]))
            raise

    with pytest.raises(NotFiniteError):
        list(stepping([run], stops_of(net)))
    assert len(seen) == 1


class Interrupting:
    """Raises KeyboardInterrupt before the n-th line that runs of a file, in this thread."""

    def __init__(self, path, moment):
        self.path, self.left = path, moment

    def __call__(self, frame, event, arg):  # noqa: ARG002
        if frame.f_code.co_filename != self.path:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def run(self, work):
        """Whether it came to that."""
        sys.settrace(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False


def test_an_interrupt_at_any_moment_leaves_no_thread_and_no_hook():
    before = set(threading.enumerate())
    moment, interrupted = 0, True
    while interrupted:
        moment += 1
        net = Net()

        def work(net=net):
            with closing(stepping(runs_of(net, BATCHES[:2]), stops_of(net))) as pauses:
                for _ in pauses:
                    pass

        interrupted = Interrupting(lockstep_module.__file__, moment).run(work)
        for thread in set(threading.enumerate()) - before:
            thread.join(timeout=5)
        assert set(threading.enumerate()) <= before, moment
        assert all(not m._forward_pre_hooks for m in net.modules()), moment
    assert moment > 50
