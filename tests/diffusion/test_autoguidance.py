"""A model that is guided by its own former state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from known_networks import Stub
from resuming import assert_halves
from torch import Tensor

from lit_generative import DDPM, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.diffusion import DDIM
from lit_generative.nn import UNet

SHAPE = (1, 28, 28)


def model(**options: Any) -> DDPM:
    torch.manual_seed(0)
    network = UNet(SHAPE, (8,), 1, (), groups=4, patch=4)
    return DDPM(network, SHAPE, sampler=DDIM(3), guidance=2.0, **({"guide_at": 60} | options))


class Watch(L.Callback):
    """Remembers the network's weights at each validation, and who guided."""

    def __init__(self) -> None:
        self.averages: list[dict[str, Tensor]] = []
        self.seen: list[tuple[int, bool]] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DDPM)
        self.averages.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DDPM)
        self.seen.append((pl_module.images_seen, pl_module.is_guided))


@pytest.fixture
def trained(make_trainer: Callable[..., L.Trainer], tmp_path: Path) -> tuple[DDPM, Watch, Path]:
    watch = Watch()
    trainer = make_trainer(max_epochs=4, limit_val_batches=1, callbacks=[EMA(0.9, part="network"), watch])
    found = model()
    trainer.fit(found, datamodule=ImageDataModule(subset=50, batch_size=25))
    trainer.save_checkpoint(tmp_path / "guided.ckpt")
    return found, watch, tmp_path / "guided.ckpt"


def test_the_guide_is_the_average_at_the_first_validation_after_guide_at(trained: tuple[DDPM, Watch, Path]) -> None:
    found, watch, _ = trained
    assert watch.seen == [(50, False), (100, True), (150, True), (200, True)]
    assert found.guide is not None
    kept = found.guide.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in watch.averages[1].items())
    assert any(not torch.equal(kept[name], value) for name, value in watch.averages[2].items())
    assert int(found.guide_kept_at) == 100


def test_a_checkpoint_keeps_the_guide(trained: tuple[DDPM, Watch, Path]) -> None:
    found, _, path = trained
    loaded = DDPM.load_from_checkpoint(path)
    samples = [each.sample(3, generator=torch.Generator().manual_seed(1)) for each in (found, loaded)]
    assert torch.equal(*samples)
    loaded.guidance = 1.0
    assert not torch.equal(loaded.sample(3, generator=torch.Generator().manual_seed(1)), samples[0])


def test_the_stamp_says_who_guides(trained: tuple[DDPM, Watch, Path]) -> None:
    found, _, _ = trained
    assert found.sampling["guide"] == "itself after 100 images"
    assert found.network_evaluations == 6
    assert "guide" not in model().sampling
    assert model().network_evaluations == 3


def test_estimates_go_away_from_the_guide() -> None:
    found = DDPM(Stub(lambda x, t, y: 0.1 * x), SHAPE, guidance=3.0, guide_at=1)
    found.guide = Stub(lambda x, t, y: 0.3 * x)
    x, t = torch.randn(2, *SHAPE), torch.full((2,), 0.5)
    plain = found.denoiser()(x, t)
    assert torch.equal(plain, found.denoise(x, t))
    found.guide_kept_at.fill_(1)
    alpha, sigma = found.schedule(t[:1])
    expected = (x - sigma * (0.3 + 3 * (0.1 - 0.3)) * x) / alpha
    torch.testing.assert_close(found.denoiser()(x, t), expected)
    assert torch.equal(found.denoiser(is_guided=False)(x, t), plain)


def test_a_guide_of_a_class_knows_the_class() -> None:
    found = DDPM(Stub(), SHAPE, num_classes=3, guidance=2.0, guide_at=1)
    guide = found.guide = Stub()
    found.guide_kept_at.fill_(1)
    found.sampler = DDIM(1)
    found.sample(2, torch.tensor([0, 2]))
    assert [y.tolist() for _, _, y in guide.asked if y is not None] == [[0, 2]]


def test_training_leaves_the_guide_alone() -> None:
    found = model()
    found.losses(torch.randn(2, *SHAPE))["loss"].mean().backward()
    assert found.guide is not None
    assert all(p.grad is None and not p.requires_grad for p in found.guide.parameters())


def test_a_run_resumed_has_the_guide_of_the_unbroken_one(make_trainer: Callable[..., L.Trainer]) -> None:
    assert_halves(model, make_trainer)
