from tests.reports.marks import plain
from tests.reports.samples import make_allocation, make_compression

from sparsemend.layers import Coverage, LeftOut
from sparsemend.reports.words import of_compression
from sparsemend.timing import Timing


def test_a_compression():
    erk = make_allocation("erk", 20, 20, 60)
    words = plain(of_compression(make_compression(added_biases=("a", "b")), [erk])).splitlines()
    assert words == [
        "90 % of 1,000 weights removed: top-1 goes from 90 % to 75 % (before repair: 12.5 %).",
        "Without any labels, the sparse network chooses the dense one's class on 87.5 % of unseen "
        "inputs (KL 0.25 nats).",
        "Rule global, mask gradual, repair reconstruct (sequential), the closest of 2 endings.",
        "Compared with ERK, rule global gives most more to a (×2), and most less to b (×0.5) and "
        "c (×0.83).",
        "2 layers got a bias parameter that the original lacks: a and b.",
    ]


def test_layers_without_a_shift_are_named():
    layers = tuple(f"block{i}.up" for i in range(5))
    words = plain(of_compression(make_compression(unshifted=layers))).splitlines()
    assert words[-1] == (
        "Repaired without a shift, having neither a bias nor a BatchNorm behind: block0.up, "
        "block1.up, block2.up and 2 more."
    )


def test_a_compression_without_labels():
    unknown = make_compression(top1_dense=None, top1_repaired=None, top1_pruned=None, heldout=False)
    words = plain(of_compression(unknown)).splitlines()
    assert words[0].startswith("90 % of 1,000 weights removed: the sparse network chooses the")
    assert "of the calibration inputs" in words[0]
    assert "top-1" not in "".join(words)


def test_coverage_in_words():
    def words(coverage):
        return plain(of_compression(make_compression(coverage=coverage))).splitlines()[2]

    assert words(Coverage(1250, 1000)) == (
        "These are all weights that the network multiplies with; of all 1,250 parameters 72 %."
    )
    left = (LeftOut("embed", 300, "looked up", multiplied=False), LeftOut("w", 500, "odd", True))
    assert words(Coverage(2000, 1000, left)) == (
        "Layers are 66.7 % of the weights that the network multiplies with, of which 60 % were "
        "removed; of all 2,000 parameters 45 %. Left out: w (odd)."
    )


def test_times_and_sizes_where_they_were_measured():
    times = {"pytorch": 2.5, "sparsemend": 0.5}
    shape, machine = "float32 [1, 3, 32, 32]", "A processor, avx2"
    timing = Timing(times, {}, shape, 1, 9, 0.05, 102_400, 5_120, machine)
    words = plain(of_compression(make_compression(timing=timing))).splitlines()
    assert words[-2:] == [
        "One batch (float32 [1, 3, 32, 32]) on 1 thread of A processor, avx2: pytorch 2.5 ms and "
        "sparsemend 0.5 ms.",
        "Packed it takes 5.0 KiB, 5 % of the dense 100.0 KiB.",
    ]
