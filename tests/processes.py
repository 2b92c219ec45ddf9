"""Two processes that train on the batches of one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.multiprocessing
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SHAPE, JOINED = (1, 8, 8), 12  # of images, and images a batch of all processes


class Share(Dataset[dict[str, Tensor]]):
    """A process's part of each joined batch, in order: noise, with labels from 0 to 2."""

    def __init__(self, rank: int, world_size: int, batches: int) -> None:
        source = torch.Generator().manual_seed(1)
        x = torch.randn(batches, JOINED, *SHAPE, generator=source).clamp(-1, 1)
        y = torch.randint(3, (batches, JOINED), generator=source)
        self.images, self.labels = (part.chunk(world_size, 1)[rank].flatten(0, 1) for part in (x, y))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i], "label": self.labels[i]}


def fit(model: L.LightningModule, rank: int, world_size: int, batches: int) -> L.Trainer:
    """Train for an epoch, under plain ddp if there are several processes."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    ddp: dict[str, Any] = {"strategy": "ddp", "plugins": [LightningEnvironment()]} if world_size > 1 else {}
    options: dict[str, Any] = {"use_distributed_sampler": False, "enable_checkpointing": False, "max_epochs": 1}
    trainer = L.Trainer(accelerator="cpu", devices=world_size, **ddp, **options, **quiet)
    assert isinstance(trainer.strategy, DDPStrategy) == (world_size > 1)
    trainer.fit(model, DataLoader(Share(rank, world_size, batches), JOINED // world_size))
    return trainer


def run_in_two(work: Callable[[int, str], None], folder: Path) -> None:
    """Call ``work(rank, folder)`` in two processes that are a group."""
    torch.multiprocessing.start_processes(_join, (work, str(folder)), nprocs=2, start_method="spawn")


def _join(rank: int, work: Callable[[int, str], None], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    work(rank, folder)
    os._exit(0)  # an orderly end waits for the other process, or aborts where gloo's threads are still alive
