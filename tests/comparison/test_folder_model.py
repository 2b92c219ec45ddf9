"""Images offered as samples: read exactly, each given at most once, refused where they are not comparable."""

import pytest
import torch
from PIL import Image

from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.pictures import save_png

SHAPE = (1, 8, 8)


@pytest.fixture
def images():
    levels = torch.randint(256, (12, *SHAPE), generator=torch.Generator().manual_seed(0))
    return levels / 127.5 - 1


@pytest.fixture
def folder(tmp_path, images):
    for i, image in enumerate(images):
        save_png(image, tmp_path / "images" / ("a" if i < 6 else "b") / f"{i:02d}.png")
    (tmp_path / "images" / "notes.txt").write_text("made by another program")
    (tmp_path / "images" / ".hidden.png").write_text("no image")
    return tmp_path / "images"


def test_all_images_below_a_folder_are_read_exactly(folder, images):
    model = ImagesOf.read(folder, SHAPE)
    torch.testing.assert_close(model.images, images, rtol=0, atol=1e-6)
    assert len(model) == 12


def test_jpegs_and_gray_images_become_what_the_data_are(tmp_path):
    Image.new("L", (8, 8), 51).save(tmp_path / "gray.jpg")
    Image.new("RGB", (8, 8), (51, 51, 51)).save(tmp_path / "colour.png")
    for channels in (1, 3):
        found = ImagesOf.read(tmp_path, (channels, 8, 8)).images
        assert torch.equal(found, torch.full((2, channels, 8, 8), 51 / 127.5 - 1))


def test_a_call_gives_each_image_at_most_once_in_the_generators_order(images):
    model = ImagesOf(images)
    first, again, other = (model.sample(12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for found in (first, other):
        assert {tuple(image.flatten().tolist()) for image in found} == {
            tuple(image.flatten().tolist()) for image in images
        }
    assert model.sample(5).shape == (5, *SHAPE)


def test_it_has_nothing_to_train_and_nothing_to_save(images):
    model = ImagesOf(images)
    assert list(model.parameters()) == []
    assert model.state_dict() == {}
    assert model.sampling["sampler"] == "given images"
    assert model.likelihoods(images, evaluations=10) == {}


def test_more_samples_than_images_are_an_error(images):
    with pytest.raises(ValueError, match="n=13: there are only 12 images; ask for fewer, or give more images"):
        ImagesOf(images).sample(13)


def test_folders_without_comparable_images_are_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder nowhere: there is no such folder"):
        ImagesOf.read("nowhere", SHAPE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no images; give one with PNG or JPEG files"):
        ImagesOf.read(tmp_path / "empty", SHAPE)
    with pytest.raises(ValueError, match="has images of 8x8 pixels, not 28x28; resize them first"):
        ImagesOf.read(folder, (1, 28, 28))
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken.png cannot be read as an image"):
        ImagesOf.read(folder, SHAPE)
