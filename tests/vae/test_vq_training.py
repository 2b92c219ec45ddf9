"""The VQ-VAE in training: it learns, resumes exactly, and bears an average of its weights."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from resuming import assert_resumes
from torch.optim.lr_scheduler import OneCycleLR
from vq_models import build

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.vae import VQVAE, GaussianLikelihood

MakeTrainer = Callable[..., L.Trainer]


def test_it_learns_real_images_and_their_codes() -> None:
    x = next(iter(ImageDataModule().loader("train", batch_size=32)))["image"]
    model = build(likelihood=GaussianLikelihood(), codebook={"decay": 0.8})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.losses(x)  # which places the codes
    before = {name: value.mean().item() for name, value in model.eval().losses(x).items()}
    error_before = (model.reconstruct(x) - x).square().mean()
    model.train()
    for _ in range(40):
        loss = model.losses(x)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = {name: value.mean().item() for name, value in model.eval().losses(x).items()}
    assert (model.reconstruct(x) - x).square().mean() < 0.25 * error_before
    assert after["nll"] < before["nll"] - 300
    assert after["prior_nll"] < 0.9 * 49 * math.log(16)
    assert after["perplexity"] > 8


def test_resumed_equals_unbroken_bit_for_bit_with_the_average(make_trainer: MakeTrainer) -> None:
    def make() -> VQVAE:
        schedule = functools.partial(OneCycleLR, max_lr=5e-3)
        # restarts at most steps, so that their noise matters
        return build(codebook={"restart_below": 0.7}, lr_scheduler=schedule)

    end = assert_resumes(make, make_trainer, (4, 7))
    assert end["state_dict"]["codebook.counts"].min() > 0
    assert not torch.equal(end["state_dict"]["codebook.codes"], make().codebook.codes)


class KeepCodes(L.Callback):
    """Keeps the trained codes after each step."""

    def on_train_start(self, trainer: L.Trainer, pl_module: VQVAE) -> None:  # type: ignore[override]
        self.codes = [pl_module.codebook.codes.clone()]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: VQVAE, *_: object) -> None:  # type: ignore[override]
        self.codes.append(pl_module.codebook.codes.clone())


def test_the_codes_are_averaged_as_the_encoder_is(make_trainer: MakeTrainer) -> None:
    model, kept = build(), KeepCodes()
    trainer = make_trainer(max_steps=6, limit_val_batches=0, callbacks=[EMA(0.8, warmup=False), kept])
    trainer.fit(model, datamodule=ImageDataModule(subset=200, batch_size=25))
    average, *later = kept.codes
    for codes in later:
        average = 0.8 * average + 0.2 * codes
    torch.testing.assert_close(model.codebook.codes, average)


def test_averaged_weights_and_codes_are_what_a_checkpoint_gives(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = ImageDataModule(subset=200, batch_size=25)
    make_adam = functools.partial(torch.optim.Adam, lr=3e-3)
    model = build(likelihood=GaussianLikelihood(), optimizer=make_adam)
    trainer = make_trainer(max_epochs=4, limit_val_batches=1, callbacks=[EMA(0.9)])
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    raw = checkpoint["callbacks"]["EMA"]["raw"]
    averages = [*model.parameters(), model.codebook.codes]  # no other buffer is averaged
    assert [value.shape for value in raw] == [value.shape for value in averages]
    averaged = GenerativeModule.load_from_checkpoint(tmp_path / "end.ckpt")
    assert isinstance(averaged, VQVAE)
    trained = GenerativeModule.load_from_checkpoint(tmp_path / "end.ckpt")
    with torch.no_grad():
        for value, trained_value in zip([*trained.parameters(), trained.codebook.codes], raw, strict=True):
            value.copy_(trained_value)
    x = next(iter(data.loader("val", batch_size=50)))["image"]
    errors = [(m.reconstruct(x) - x).square().mean().item() for m in (averaged, trained)]  # type: ignore[operator]
    assert errors[0] != errors[1]
    assert errors[0] < 1.1 * errors[1]
