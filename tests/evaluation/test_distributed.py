"""Two processes give the numbers of one."""

import json
from pathlib import Path

import pytest
import torch
from processes import run_in_two
from stand_ins import NoisyCopies, images_and_labels

from lit_generative.data import ImageDataModule
from lit_generative.evaluation import Evaluator
from lit_generative.evaluation.metrics import SampleQuality


def features():
    return torch.randn(2, 90, 8, generator=torch.Generator().manual_seed(0))


def quality_of(share):
    real, fake = features()
    quality = SampleQuality(8)
    quality.update(real[share], real=True)
    quality.update(fake[share] * 0.8, real=False)
    return {name: value.item() for name, value in quality.compute().items()}


def quality_where_only_rank_0_has_images(rank):
    quality = SampleQuality(8)
    if rank == 0:
        for real, images in zip((True, False), features(), strict=True):
            quality.update(images, real)
    return {name: value.item() for name, value in quality.compute().items()}


def load_model(folder):
    return NoisyCopies(*torch.load(f"{folder}/images.pt", weights_only=True), num_classes=10)


def evaluation(model, cache_dir):
    data = ImageDataModule(subset=600)
    evaluator = Evaluator(num_samples=350, num_real=501, batch_size=100, cache_dir=cache_dir, extended=True)
    return [evaluator.evaluate(model, data, progress=False).to_dict() for _ in range(2)]


def run(rank, folder):
    model = load_model(folder)
    found = {
        "uneven": quality_of(slice(0, 20) if rank == 0 else slice(20, None)),
        "one": quality_where_only_rank_0_has_images(rank),
        "evaluation": evaluation(model, f"{folder}/cache-{rank}"),  # two machines need not share a disk
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    images = images_and_labels(ImageDataModule(subset=600), "train", 600)  # a group shares them
    torch.save(images, folder / "images.pt")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    run_in_two(run, folder)
    assert len(list((folder / "cache-0").iterdir())) == 2
    assert not (folder / "cache-1").exists()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_metrics_of_uneven_shares_equal_those_of_one_process(found):
    expected = quality_of(slice(None))
    for rank in range(2):
        assert found[rank]["uneven"] == pytest.approx(expected, rel=1e-9)


def test_a_process_without_images_takes_part(found):
    expected = quality_where_only_rank_0_has_images(0)
    for rank in range(2):
        assert found[rank]["one"] == pytest.approx(expected, rel=1e-9)


def test_an_evaluation_is_the_same_on_one_process_and_on_two(found, folder):
    expected = evaluation(load_model(folder), str(folder / "alone"))[0]
    for results in found:
        for result in results["evaluation"]:  # computed, and read from the cache
            assert result["metrics"] == pytest.approx(expected["metrics"], rel=1e-6)
            distances, one = (classes.pop("distances") for classes in (result["classes"], dict(expected["classes"])))
            assert all(distances[name] == pytest.approx(one[name], rel=1e-6, abs=1e-6) for name in one)
            assert len(one) == 10
            assert result["classes"].items() <= expected["classes"].items()
            assert result["warnings"] == expected["warnings"]
            for name in ("floor", "floor_spread"):
                floors = [stamp.pop(name) for stamp in (result["protocol"], dict(expected["protocol"]))]
                assert floors[0] == pytest.approx(floors[1], rel=1e-6)
            assert result["protocol"].items() <= expected["protocol"].items()
