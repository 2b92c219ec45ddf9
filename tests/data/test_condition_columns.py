"""Columns of metadata.csv that batches carry by name, for models that are told more than a class."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_generative.data import ImageDataModule
from lit_generative.nn import AttributeCondition, VectorCondition

COLOURS = ["red", "blue", "green"]


@pytest.fixture
def pets(tmp_path: Path, pictures, hf_cache) -> Path:
    """Thirty pictures with a colour, an age and a number of legs; the last has no row."""
    root = tmp_path / "pets"
    root.mkdir()
    lines = ["file_name,colour,age,legs"]
    for i, image in enumerate(pictures[0]):
        image.save(root / f"{i:02}.png")
        lines.append(f"{i:02}.png,{COLOURS[i % 3]},{i / 2},{i % 2}")
    (root / "metadata.csv").write_text("\n".join(lines[:-1]))
    return root


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_value_goes_with_its_picture(pets: Path, pictures, in_memory: bool) -> None:
    columns = ["colour", "age", "legs"]
    data = ImageDataModule(pets, condition_columns=columns, in_memory=in_memory, num_workers=0, batch_size=7)
    place = {np.asarray(image).tobytes(): i for i, image in enumerate(pictures[0])}
    found = {}
    loaders = [data.training_loader(), *(data.loader(split) for split in ("val", "test"))]
    for batch in (batch for loader in loaders for batch in loader):
        for image, *values in zip(batch["image"], *(batch[name] for name in columns), strict=True):
            pixels = ((image[0] + 1) * 127.5).round().byte().numpy()
            found[place[pixels.tobytes()]] = [value.item() for value in values]
    assert len(found) > 20
    for i, (colour, age, legs) in found.items():
        if i == 29:  # it has no row
            assert (colour, np.isnan(age), np.isnan(legs)) == (-1, True, True)
        else:
            assert (colour, age, legs) == (sorted(COLOURS).index(COLOURS[i % 3]), i / 2, i % 2)


def test_conditions_are_made_of_columns(pets: Path) -> None:
    data = ImageDataModule(pets, condition_columns=["colour", "age"], batch_size=10)
    batch = next(iter(data.loader("train")))
    attributes = AttributeCondition({"colour": 3}).of(batch)
    assert torch.equal(attributes[:, 0], batch["colour"])
    assert torch.equal(VectorCondition(["age"]).of(batch)[:, 0].nan_to_num(-1), batch["age"].nan_to_num(-1))
    assert data.fingerprint("train") != ImageDataModule(pets, batch_size=10).fingerprint("train")
