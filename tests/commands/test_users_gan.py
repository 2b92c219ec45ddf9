"""A game of a user's own runs from the command line by its dotted path."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from running import TINY, Outcome

from lit_generative import GenerativeModule
from lit_generative.gan import R1

CONFIG = """
model:
  class_path: my_gans.LSGANWithNoise
  init_args:
    latent_dim: 8
    loss: LeastSquaresLoss
    generator: {class_path: MLPGenerator, init_args: {hidden: [32]}}
    discriminator: {class_path: MLPDiscriminator, init_args: {hidden: [32]}}
    penalties: [{class_path: R1, init_args: {weight: 0.1, every: 2}}]
    generator_optimizer: {class_path: Adam, init_args: {lr: 1.0e-3, betas: [0.0, 0.9]}}
    discriminator_lr_scheduler: {class_path: OneCycleLR, init_args: {max_lr: 1.0e-3}}
    discriminator_clip: 1.0
"""


def test_a_users_game_runs_by_its_dotted_path(
    lit_generative: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).parents[1] / "users_gans.py"
    Path("my_gans.py").write_text(source.read_text())
    Path("game.yaml").write_text(CONFIG)
    outcome = lit_generative("fit", "--config", "game.yaml", *TINY)
    assert outcome.status == 0, outcome.err
    assert not outcome.err
    monkeypatch.syspath_prepend(tmp_path)
    model = GenerativeModule.load_from_checkpoint(outcome.folder / "checkpoints" / "last.ckpt")
    assert type(model) is import_module("my_gans").LSGANWithNoise
    assert model.images_seen == 400
    assert [(type(p), p.weight, p.every) for p in model.penalties] == [(R1, 0.1, 2)]
    assert model.make_optimizers[1](model.generator.parameters()).defaults["betas"] == (0.0, 0.9)
    assert model.make_optimizers[0](model.discriminator.parameters()).defaults["lr"] == 2e-4
    assert model.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 1, 28, 28)
