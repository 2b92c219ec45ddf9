"""A new training from the weights of an old one, for each family: other classes, other shapes, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from known_models import MODELS
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_generative import DDPM, GAN, VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.diffusion import DDIM, AutoGuidance, CosineSchedule, LossAwareTimes
from lit_generative.evaluation.identity import weights_digest
from lit_generative.fine_tuning import take_weights
from lit_generative.gan import AdaptiveAugment, DiffAugment, NonSaturatingLoss
from lit_generative.nn import ConvDecoder, ConvEncoder, DCGANDiscriminator, DCGANGenerator, UNet
from lit_generative.vae import GaussianLikelihood

SHAPE = (1, 28, 28)
Make = Callable[..., GenerativeModule]


def vae(num_classes: int | None, shape: tuple[int, int, int] = SHAPE) -> VAE:
    encoder, decoder = (
        cls(shape, 4, (8,), hidden=(16,), num_classes=num_classes) for cls in (ConvEncoder, ConvDecoder)
    )
    return VAE(encoder, decoder, GaussianLikelihood(), 4, num_classes=num_classes)


def gan(num_classes: int | None, shape: tuple[int, int, int] = SHAPE) -> GAN:
    generator = DCGANGenerator(shape, 8, (8,), num_classes=num_classes)
    discriminator = DCGANDiscriminator(shape, (8,), batch_norm=False, num_classes=num_classes)
    augment = AdaptiveAugment(DiffAugment(), horizon=100)
    return GAN(generator, discriminator, NonSaturatingLoss(), 8, augment=augment, num_classes=num_classes)


def ddpm(num_classes: int | None, shape: tuple[int, int, int] = SHAPE) -> DDPM:
    network = UNet(shape, (8, 8), 1, (), groups=4, patch=4, num_classes=num_classes)
    guidance, times = AutoGuidance(2.0, keep_at=0.1), LossAwareTimes(num_bins=2, history=1)
    return DDPM(
        network, shape, CosineSchedule(), times=times, sampler=DDIM(2), guidance=guidance, num_classes=num_classes
    )


FAMILIES: dict[str, Make] = {"vae": vae, "gan": gan, "ddpm": ddpm}


def images(classes: range, n: int = 20) -> DataLoader[dict[str, Tensor]]:
    """Real images of some classes, whose labels begin at 0."""
    batch = next(iter(ImageDataModule(subset=100, batch_size=100).loader("train")))
    chosen = torch.isin(batch["label"], torch.tensor(classes))
    x, y = batch["image"][chosen][:n], batch["label"][chosen][:n] - classes.start
    return DataLoader([{"image": image, "label": label} for image, label in zip(x, y, strict=True)], n // 2)  # type: ignore[arg-type]


def trained(model: GenerativeModule, trainer: L.Trainer, classes: range) -> L.Trainer:
    trainer.fit(model, images(classes), images(classes))
    return trainer


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of models of classes 0 to 4, whose averages are not their trained weights."""
    folder, paths = tmp_path_factory.mktemp("bases"), {}
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    for name, make in FAMILIES.items():
        torch.manual_seed(0)
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=6,
            callbacks=[EMA(0.9)],
            enable_model_summary=False,
            default_root_dir=folder,
            **quiet,
        )
        trained(make(5), trainer, range(5)).save_checkpoint(paths.setdefault(name, folder / f"{name}.ckpt"))
    return paths


def class_vectors(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("num_classes", [3, 5, None])
def test_what_fits_is_taken_and_the_rest_is_listed(bases: dict[str, Path], name: str, num_classes: int | None) -> None:
    torch.manual_seed(1)
    model, base = FAMILIES[name](num_classes), torch.load(bases[name], weights_only=True)["state_dict"]
    taken = take_weights(model, bases[name])
    parameters = {n: p for n, p in model.named_parameters() if not n.startswith("guidance")}
    for parameter in parameters:
        if num_classes == 5 or parameter not in class_vectors(model):
            assert torch.equal(parameters[parameter], base[parameter]), parameter
    assert set(parameters) <= {*taken.taken, *taken.new}
    assert (taken.parameters[0] == taken.parameters[1]) == (num_classes != 3)
    assert bool(taken.left) == (num_classes is None)
    assert bool(taken.new) == (num_classes == 3)
    assert ("embedding" in str(taken)) == (num_classes != 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_classes_begin_as_the_mean_of_the_old_ones(bases: dict[str, Path], name: str) -> None:
    model, base = FAMILIES[name](3), torch.load(bases[name], weights_only=True)["state_dict"]
    take_weights(model, bases[name])
    state = model.state_dict()
    names = {n for n in class_vectors(model) if not n.startswith("guidance")}
    assert names
    for vectors in names:
        assert base[vectors][:5].std(0).max() > 0
        torch.testing.assert_close(state[vectors][:3], base[vectors][:5].mean(0).expand(3, -1))
        assert torch.equal(state[vectors][3:], base[vectors][5:])  # what means "no class"


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_a_new_run_that_says_what_it_is_from(
    bases: dict[str, Path], name: str, make_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    model = FAMILIES[name](3)
    take_weights(model, bases[name])
    before = GenerativeModule.load_from_checkpoint(bases[name])
    assert model.images_seen == 0
    assert model.weights == "raw"
    assert model.noise_seed is None
    trainer = trained(model, make_trainer(max_steps=2, limit_val_batches=0), range(5, 8))
    assert trainer.global_step == 2
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    tuned = GenerativeModule.load_from_checkpoint(tmp_path / "tuned.ckpt")
    assert tuned.images_seen == 20
    assert tuned.origin == {
        "checkpoint": str(bases[name]),
        "weights_sha256": weights_digest(before),
        "weights": "ema 0.9",
        "images_seen": before.images_seen,
    }
    again = FAMILIES[name](3)
    take_weights(again, tmp_path / "tuned.ckpt")
    assert again.origin is not None
    assert again.origin["weights_sha256"] == weights_digest(tuned)


def test_what_belongs_to_a_run_begins_anew(bases: dict[str, Path]) -> None:
    old: Any = GenerativeModule.load_from_checkpoint(bases["ddpm"])
    assert old.times.counts.sum() > 0
    assert old.guidance.kept_at > 0
    model = ddpm(5)
    take_weights(model, bases["ddpm"])
    assert model.times.counts.sum() == 0
    assert model.guidance.kept_at == 0
    for ours, guides in zip(model.network.parameters(), model.guidance.guide.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(ours, guides)
    adapted = gan(5)
    take_weights(adapted, bases["gan"])
    assert adapted.augment.raised == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FAMILIES)
def test_other_channels_take_all_but_the_layers_at_the_images(bases: dict[str, Path], name: str) -> None:
    model = FAMILIES[name](5, (3, 28, 28))
    taken = take_weights(model, bases[name])
    assert 0 < taken.parameters[0] < taken.parameters[1]
    assert set(taken.new) == set(taken.left)
    assert taken.new
    shown = str(taken)
    assert all(f"{key}: {tuple(model.state_dict()[key].shape)}, the file has" in shown for key in list(taken.new)[:8])


@pytest.mark.parametrize("other", ["vae", "gan"])
def test_a_model_of_another_kind_takes_nothing_and_stays_what_it_was(bases: dict[str, Path], other: str) -> None:
    model = ddpm(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=f"{other}.ckpt: none of its weights, those of a {other.upper()}, fits this DDPM"
    ):
        take_weights(model, bases[other])
    assert model.origin is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_arguments_that_give_the_weights_another_meaning_are_named(bases: dict[str, Path]) -> None:
    model = DDPM(UNet(SHAPE, (8, 8), 1, (), groups=4, patch=4), SHAPE)
    assert "schedule: CosineSchedule in the file, None here" in str(take_weights(model, bases["ddpm"]))


def test_weights_that_are_not_finite_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = torch.load(bases["vae"], weights_only=True)
    checkpoint["state_dict"]["decoder.stem.bias"][0] = float("nan")
    torch.save(checkpoint, tmp_path / "broken.ckpt")
    with pytest.raises(FloatingPointError, match=r"decoder\.stem\.bias has values that are not finite"):
        take_weights(vae(5), tmp_path / "broken.ckpt")


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_takes_all_of_its_own_weights(
    name: str, make_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trained(MODELS[name](), trainer, range(10))
    trainer.save_checkpoint(tmp_path / "base.ckpt")
    taken = take_weights(MODELS[name](), tmp_path / "base.ckpt")
    assert not taken.new
    assert not taken.left
    assert not taken.otherwise
    assert taken.parameters[0] == taken.parameters[1] > 0
