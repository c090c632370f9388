import pytest

from sparsemend.layers import Layer


@pytest.mark.parametrize(
    ("kind", "shape", "kernel"),
    [
        ("Linear", (5, 4), ()),
        ("Conv1d", (6, 4, 3), (3,)),
        ("Conv3d", (6, 4, 1, 2, 3), (1, 2, 3)),
        ("ConvTranspose2d", (4, 6, 3, 2), (3, 2)),
    ],
)
def test_size_and_kernel_follow_from_the_shape(kind, shape, kernel):
    layer = Layer("a", kind, shape, groups=1, rows=6, fan_in=1, order=0)
    size = 1
    for extent in shape:
        size *= extent
    assert layer.size == size
    assert layer.kernel_size == kernel
    assert layer.is_convolution == (kind != "Linear")
