"""Options of the trainer with which nothing would be learned, or not what was asked for."""

from typing import Any

import lightning as L
from torch import nn

from lit_generative.checks import check_count, check_range
from lit_generative.nn.adapters import adapted_networks

__all__ = ["check_adapters", "check_batch_norm", "check_training_options"]


def check_training_options(trainer: L.Trainer) -> None:
    """Refuse numbers that Lightning takes and that train nothing, or are no numbers of their kind.

    Raises:
        ValueError: It names the option, its value and what would do.
    """
    for option in ("max_epochs", "max_steps"):
        value: Any = getattr(trainer, option)
        if value != -1:
            check_count(f"trainer.{option}", value, hint="of 0 nothing is learned; -1 is no limit")
    if trainer.limit_train_batches == 0:
        raise ValueError("trainer.limit_train_batches=0: nothing would be learned; give at least 1, or leave it out")
    check_range("trainer.gradient_clip_val", trainer.gradient_clip_val, at_least=0, hint="null is no clipping")
    check_count("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches)


def check_batch_norm(networks: dict[str, nn.Module], sizes: list[int], where: str) -> None:
    """Refuse batches of one image for networks that normalise batches: all that tells images apart would be lost.

    Args:
        networks: By name.
        sizes: Of the parts that a batch is cut into.
        where: The options that decide these.

    Raises:
        ValueError: If a part has one image, and a network a batch normalisation.
    """
    for name, network in networks.items():
        if min(sizes) < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            raise ValueError(
                f"{name} normalises batches, but a part of a batch has 1 image: change {where}, or take a network "
                "without batch normalisation"
            )


def check_adapters(model: Any) -> None:
    """Refuse to adapt networks that were never trained.

    Args:
        model: A GenerativeModule.

    Raises:
        ValueError: It says where weights come from.
    """
    for name, _, adapters in adapted_networks(model):
        if model.origin is None:
            raise ValueError(
                f"{name}.adapters=LowRankAdapters(rank={adapters.rank}): there are no trained weights to adapt; give "
                "--from CKPT, or in Python take_weights(model, CKPT) before fit"
            )
