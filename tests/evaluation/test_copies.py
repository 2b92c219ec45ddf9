"""Copies are found in training, mirrored ones too, and make a state that draws them a bad one."""

from math import inf, isinf
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from lit_generative import VAE
from lit_generative.callbacks import Evaluate
from lit_generative.data import ImageDataModule
from lit_generative.evaluation import Evaluator
from lit_generative.evaluation.copies import copied_share, copied_share_of_real, quality_without_copies
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.pictures import save_png
from lit_generative.vae import BernoulliLikelihood


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=300, batch_size=100)


@pytest.fixture(scope="module")
def training(data: ImageDataModule) -> Tensor:
    return torch.cat([batch["image"] for batch in data.loader("train")])


def test_copies_are_found_as_they_are_and_mirrored(data: ImageDataModule, training: Tensor) -> None:
    unseen = next(iter(data.loader("val")))["image"]
    by_chance = copied_share_of_real(data, "val")
    assert by_chance < 0.1
    noisy = (training[:50] + 0.02 * torch.randn(50, 1, 28, 28)).clamp(-1, 1)
    for copies in (training[:50], training[:50].flip(3), noisy):
        assert copied_share(copies, data) > 0.9
        assert copied_share(torch.cat([copies, unseen[:50]]), data) == pytest.approx(0.5, abs=0.1)
    assert copied_share(unseen[:0], data) == 0


def test_copies_of_large_images_are_found_among_smaller_ones(tmp_path: Path) -> None:
    picture = torch.rand(40, 3, 6, 6).repeat_interleave(12, 2).repeat_interleave(12, 3)
    for i, image in enumerate(picture):
        save_png(image * 2 - 1, tmp_path / f"{i}.png")
    data = ImageDataModule(str(tmp_path), val_fraction=0.2)
    training = torch.cat([batch["image"] for batch in data.loader("train")])
    assert copied_share(training.flip(3), data) == 1
    assert copied_share(torch.rand(20, 3, 72, 72) * 2 - 1, data) == 0


def test_a_distance_gets_worse_with_copies_beyond_those_by_chance() -> None:
    values = [quality_without_copies(2.0, share) for share in (0, 0.02, 0.05, 0.09, 0.1, 1)]
    assert values == sorted(values)
    assert values[0] == 2
    assert values[2] == pytest.approx(4)
    assert values[-2:] == [inf, inf]
    assert quality_without_copies(2.0, 0.3, floor=0.3) == 2
    assert quality_without_copies(2.0, 0.3, floor=0.4) == 2
    assert quality_without_copies(2.0, 1.0, floor=1.0) == 2


@pytest.mark.parametrize(("copies", "is_looked_at"), [(True, True), (False, True), (True, False)])
def test_an_evaluation_notices_a_model_that_copies(
    data: ImageDataModule, training: Tensor, copies: bool, is_looked_at: bool, tmp_path: Path
) -> None:
    class Memory(VAE):
        def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
            if copies:
                return training[torch.randint(len(training), (n,), generator=generator)]
            return torch.rand(n, 1, 28, 28, generator=generator) * 2 - 1

    shape, dim = (1, 28, 28), 2
    model = Memory(MLPEncoder(shape, dim), MLPDecoder(shape, dim), BernoulliLikelihood(), dim)
    evaluator = Evaluator("random", num_samples=60, num_real=60, cache_dir=str(tmp_path))
    callback = Evaluate(evaluator, every_n_epochs=1, copies_below=20_000 if is_looked_at else 0)
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        callbacks=[callback],
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if is_looked_at:
        assert (found["evaluation/memorised"] > 0.9) == copies
    assert isinf(found["evaluation/quality_without_copies"]) == (copies and is_looked_at)
    assert "Infinity" not in (tmp_path / "evaluation.json").read_text()
