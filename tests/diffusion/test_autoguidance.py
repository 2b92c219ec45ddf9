"""A model that is guided by its own former state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from known_networks import Stub
from resuming import assert_halves
from torch import Tensor, nn

from lit_generative import DDPM, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.diffusion import DDIM, AutoGuidance, Estimate
from lit_generative.nn import UNet

SHAPE = (1, 28, 28)


def model(keep_at: float = 0.3, cls: type[DDPM] = DDPM) -> DDPM:
    torch.manual_seed(0)
    network = UNet(SHAPE, (8,), 1, (), groups=4, patch=4)
    return cls(network, SHAPE, sampler=DDIM(3), guidance=AutoGuidance(2.0, keep_at=keep_at))


def guided_by(network: nn.Module, scale: float = 2.0, cls: type[DDPM] = DDPM, **options: Any) -> DDPM:
    """Return a model that is guided by another network."""
    guidance = AutoGuidance(scale)
    found = cls(Stub(lambda x, t, y: 0.1 * x), SHAPE, guidance=guidance, **options)
    guidance.guide = network
    guidance.kept_at.fill_(1)
    return found


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
        self.seen.append((pl_module.images_seen, pl_module.active_guidance is not None))


@pytest.fixture
def trained(make_trainer: Callable[..., L.Trainer], tmp_path: Path) -> tuple[DDPM, Watch, Path]:
    watch = Watch()
    trainer = make_trainer(max_epochs=4, limit_val_batches=1, callbacks=[EMA(0.9, part="network"), watch])
    found = model()
    trainer.fit(found, datamodule=ImageDataModule(subset=50, batch_size=25))
    trainer.save_checkpoint(tmp_path / "guided.ckpt")
    return found, watch, tmp_path / "guided.ckpt"


def test_the_guide_is_the_average_at_the_first_validation_after_its_share(trained: tuple[DDPM, Watch, Path]) -> None:
    found, watch, _ = trained
    assert watch.seen == [(50, False), (100, True), (150, True), (200, True)]
    guidance = found.active_guidance
    assert isinstance(guidance, AutoGuidance)
    assert guidance.guide is not None
    kept = guidance.guide.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in watch.averages[1].items())
    assert any(not torch.equal(kept[name], value) for name, value in watch.averages[2].items())
    assert int(guidance.kept_at) == 100


@pytest.mark.parametrize(
    ("keep_at", "length", "kept_at"),
    [
        (0.5, {"max_epochs": 2}, 50),
        (0.5, {"max_epochs": 4}, 100),
        (0.5, {"max_epochs": -1, "max_steps": 6}, 100),  # validations after 2 of 6 steps, and after 4
        (0.5, {"max_epochs": 8, "accumulate_grad_batches": 2}, 200),
        (1.0, {"max_epochs": 2}, 100),
    ],
)
def test_its_share_is_that_of_the_whole_training(
    make_trainer: Callable[..., L.Trainer], keep_at: float, length: dict[str, int], kept_at: int
) -> None:
    found = model(keep_at)
    data = ImageDataModule(subset=50, batch_size=25)
    make_trainer(limit_val_batches=1, **length).fit(found, datamodule=data)
    assert int(found.guidance.kept_at) == kept_at  # type: ignore[union-attr, arg-type]


def test_a_training_of_unknown_length_is_refused_before_its_first_step(make_trainer: Callable[..., L.Trainer]) -> None:
    found, data = model(), ImageDataModule(subset=50, batch_size=25)
    trainer = make_trainer(max_epochs=-1, max_steps=-1)
    message = "guidance=AutoGuidance: it follows the training, whose length is not known; give max_steps, max_epochs, "
    with pytest.raises(ValueError, match=message):
        trainer.fit(found, datamodule=data)
    assert found.images_seen == 0


def test_a_checkpoint_keeps_the_guide(trained: tuple[DDPM, Watch, Path]) -> None:
    found, _, path = trained
    loaded = DDPM.load_from_checkpoint(path)
    samples = [each.sample(3, generator=torch.Generator().manual_seed(1)) for each in (found, loaded)]
    assert torch.equal(*samples)
    loaded.guidance = None
    assert not torch.equal(loaded.sample(3, generator=torch.Generator().manual_seed(1)), samples[0])


def test_the_stamp_says_who_guides(trained: tuple[DDPM, Watch, Path]) -> None:
    found, _, _ = trained
    assert found.sampling["guide"] == "itself after 100 images"
    assert found.sampling["guidance"]["init_args"] == {"scale": 2.0, "keep_at": 0.3}
    assert found.network_evaluations == 6
    assert "guidance" not in model().sampling
    assert model().network_evaluations == 3


def test_estimates_go_away_from_the_guide() -> None:
    found = guided_by(Stub(lambda x, t, y: 0.3 * x), scale=3.0)
    x, t = torch.randn(2, *SHAPE), torch.full((2,), 0.5)
    alpha, sigma = found.schedule(t[:1])
    guided = found.denoiser()(x, t).x0
    torch.testing.assert_close(guided, (x - sigma * (0.3 + 3 * (0.1 - 0.3)) * x) / alpha)
    plain = found.denoise(x, t).x0
    assert torch.equal(found.denoiser(is_guided=False)(x, t).x0, plain)
    found.guidance.kept_at.fill_(0)  # type: ignore[union-attr, operator]
    assert torch.equal(found.denoiser()(x, t).x0, plain)


def test_a_guide_of_a_class_knows_the_class() -> None:
    guide = Stub()
    found = guided_by(guide, num_classes=3, sampler=DDIM(1))
    found.sample(2, torch.tensor([0, 2]))
    assert [y.tolist() for _, _, y in guide.asked if y is not None] == [[0, 2]]


class Halved(DDPM):
    """A user's model that changes its estimates."""

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        return Estimate(super().denoise(x_t, t, y).x0 / 2)


def test_a_users_hook_is_the_guides_as_well() -> None:
    x, t = torch.randn(2, *SHAPE), torch.full((2,), 0.5)
    plain, halved = (guided_by(Stub(lambda x, t, y: 0.3 * x), cls=cls) for cls in (DDPM, Halved))
    own = halved.network
    torch.testing.assert_close(halved.denoiser()(x, t).x0, plain.denoiser()(x, t).x0 / 2)
    assert halved.network is own


def test_training_leaves_the_guide_alone() -> None:
    found = model()
    found.losses(torch.randn(2, *SHAPE))["loss"].mean().backward()
    assert found.guidance is not None
    guide = list(found.guidance.parameters())
    assert guide
    assert all(p.grad is None and not p.requires_grad for p in guide)


def test_a_run_resumed_has_the_guide_of_the_unbroken_one(make_trainer: Callable[..., L.Trainer]) -> None:
    assert_halves(model, make_trainer)
