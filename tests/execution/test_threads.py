import threading

import pytest
import torch

from sparsemend.execution.threads import threaded_map


@pytest.fixture(autouse=True, params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("cost", [None, lambda item: item % 3])
def test_results_are_in_the_order_of_the_items(threads, cost):
    assert threaded_map(lambda item: item**2, range(20), cost) == [i**2 for i in range(20)]
    assert torch.get_num_threads() == threads


def test_pieces_run_side_by_side_each_on_one_thread(threads):
    together = threading.Barrier(threads, timeout=30)  # passes only if all pieces run at once

    def work(_):
        together.wait()
        return torch.get_num_threads()

    assert threaded_map(work, range(threads)) == [1] * threads
    assert torch.get_num_threads() == threads
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_the_first_error_in_order_is_raised_and_nothing_runs_on():
    running = []

    def work(item):
        running.append(item)
        if item in (3, 5):
            raise ValueError(item)
        running.remove(item)

    with pytest.raises(ValueError, match="3"):
        threaded_map(work, range(6))
    assert set(running) <= {3, 5}


def test_work_within_work_does_not_wait_for_itself():
    def outer(item):
        return sum(threaded_map(lambda x: x * item, range(4)))

    assert threaded_map(outer, range(5)) == [6 * i for i in range(5)]
