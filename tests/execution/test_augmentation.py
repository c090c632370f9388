"""Changes of images: what moves, how far, and that a seed draws the same."""

import pytest
import torch

from sparsemend.execution.augmentation import augmented, mirrored, shifted

X = torch.arange(18.0).reshape(6, 3)


def test_mirror_images_follow_the_images():
    batches = [torch.randn(2, 3, 4, 5), torch.randn(1, 3, 4, 5)]
    doubled = mirrored(batches)
    assert doubled[:2] == batches
    for image, copy in zip(batches, doubled[2:], strict=True):
        assert all(torch.equal(copy[..., j], image[..., -1 - j]) for j in range(5))


@pytest.mark.parametrize("other", [X, X.expand(2, 3, 6, 3).long(), {"x": X}, (X, X), None])
def test_only_images_have_copies(other):
    batches = [torch.randn(2, 3, 4, 5), other]
    assert mirrored(batches) is None
    assert augmented(batches, 2) is None


def test_shifts_move_images_by_an_eighth_at_most():
    x = torch.zeros(200, 1, 16, 16)
    x[:, :, 8, 8] = 1
    places = shifted(x, torch.Generator().manual_seed(0)).flatten(1).argmax(dim=1)
    rows, columns = places // 16, places % 16
    for found in (rows, columns):
        assert set(found.tolist()) == set(range(6, 11))


def test_copies_follow_the_images_and_keep_what_is_in_them():
    batches = list(torch.rand(10, 3, 16, 16).split(4))
    found = augmented(batches, 3)
    assert all(map(torch.equal, found, batches))
    assert [len(batch) for batch in found] == 4 * [4, 4, 2]
    again, other = augmented(batches, 3), augmented(batches, 3, seed=1)
    assert all(map(torch.equal, found, again))
    assert not torch.equal(found[3], other[3])
    # The inner part of each copy, or of its mirror image, is a window of the image.
    for image, copy in zip(batches[0], found[3], strict=True):
        inner = copy[:, 2:-2, 2:-2]
        windows = [
            way[:, up : up + 12, left : left + 12]
            for way in (image, image.flip(-1))
            for up in range(5)
            for left in range(5)
        ]
        assert any(torch.equal(inner, window) for window in windows)


def test_images_too_small_to_be_shifted_stay_in_place():
    x = torch.rand(20, 1, 4, 4)
    _, copy = augmented([x], 1)
    assert ((copy == x) | (copy == x.flip(-1))).all()
