import itertools

from sparsemend.execution import stopwatch


def test_the_shortest_run_but_for_the_first(monkeypatch):
    lengths = iter([0.001, 5.0, 2.0, 3.0])
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, n) for n in [5.0, 2.0, 3.0]))
    monkeypatch.setattr(stopwatch.time, "perf_counter", clock.__next__)
    assert stopwatch.best_time(lambda: next(lengths), 3) == 2.0
    assert list(lengths) == []


def test_the_median_of_the_quietest_burst(monkeypatch):
    bursts = iter([[1.0], [5.0, 6.0, 7.0], [9.0, 2.0, 3.0], [4.0] * 3, [8.0] * 3, [3.5] * 3])
    monkeypatch.setattr(stopwatch, "_times", lambda *_: next(bursts))
    assert stopwatch.steady_time(lambda: None) == 3.0
