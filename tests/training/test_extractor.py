import json

import pytest
import torch
from safetensors import safe_open

from lit_generative.data import ImageDataModule
from lit_generative.evaluation.features import load_extractor
from lit_generative.training.extractor import train_extractor


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("extractor") / "new" / "mine.safetensors"
    data = ImageDataModule(subset=1000, batch_size=50)
    return path, train_extractor(data, str(path), epochs=2), data


def test_a_trained_extractor_loads_from_its_file_alone(trained):
    path, about, data = trained
    extractor = load_extractor(str(path))
    assert (extractor.name, extractor.class_names) == ("mine", data.class_names)
    batch = next(iter(data.loader("test", batch_size=500, limit=500)))
    found = extractor.classify(extractor(batch["image"])).argmax(dim=1)
    accuracy = (found == batch["label"]).double().mean().item()
    assert accuracy > 0.6
    assert accuracy == pytest.approx(about["accuracy"], abs=0.1)


def test_features_of_the_training_images_are_standardised(trained):
    path, _, data = trained
    extractor = load_extractor(path)
    features = torch.cat([extractor(batch["image"]) for batch in data.loader("train")])
    assert features.mean(dim=0).abs().max() < 0.1
    assert (features.std(dim=0) - 1).abs().max() < 0.1


def test_the_file_says_where_it_came_from(trained):
    path, about, data = trained
    with safe_open(path, framework="pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    assert metadata["data"] == data.protocol("train")
    assert metadata["seed"] == 0
    assert {key: metadata[key] for key in about} == about


def test_what_cannot_be_trained_is_an_error_before_the_training(tmp_path):
    data = ImageDataModule(label_column=None)
    with pytest.raises(ValueError, match="data 'fashion-mnist' has no labels"):
        train_extractor(data, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match=r"output is 'x.pth'; the name must end in .safetensors"):
        train_extractor(ImageDataModule(), "x.pth")
    with pytest.raises(ValueError, match="class_names has 2 names, but the data has 10 classes"):
        train_extractor(ImageDataModule(), "x.safetensors", class_names=["cat", "dog"])
