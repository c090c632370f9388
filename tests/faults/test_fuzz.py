"""Random networks, others every day; ``--fuzz-seconds`` and ``--fuzz-seed`` say which."""

import datetime

from tests.faults.fuzz import Trial, fuzz


def test_random_networks(request):
    seconds = request.config.getoption("fuzz_seconds")
    seed = request.config.getoption("fuzz_seed")
    if seed is None:
        seed = int(datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%d")) * 100_000
    outcomes = fuzz(seed, seconds)
    print(f"from seed {seed} on: {dict(outcomes)}")


def test_a_seed_is_a_trial():
    one, other = Trial(7), Trial(7)
    assert one.recipe == other.recipe
    assert str(one.model) == str(other.model)
    assert (one.batches[0] == other.batches[0]).all()
