"""Two processes keep the codebook that one keeps with their joined batches."""

import functools
import os
from typing import Any

import lightning as L
import pytest
import torch
import torch.multiprocessing
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from vq_models import build

JOINED, STEPS, SHAPE = 12, 4, (1, 8, 8)
RESTARTS = {"never": 0.0, "often": 0.7}


class Share(Dataset[dict[str, Tensor]]):
    """A process's part of each joined batch, in order."""

    def __init__(self, rank: int, world_size: int) -> None:
        x = torch.randn(STEPS, world_size, JOINED // world_size, *SHAPE, generator=torch.Generator().manual_seed(1))
        self.images = x.clamp(-1, 1)[:, rank].flatten(0, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i]}


def train(restart_below: float, rank: int, world_size: int) -> dict[str, Tensor]:
    """Train, under plain ddp if there are several processes, and return the state reached."""
    sgd = functools.partial(torch.optim.SGD, lr=1e-4)
    model = build(None, SHAPE, codebook={"restart_below": restart_below}, optimizer=sgd)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    ddp: dict[str, Any] = {"strategy": "ddp", "plugins": [LightningEnvironment()]} if world_size > 1 else {}
    options: dict[str, Any] = {"use_distributed_sampler": False, "enable_checkpointing": False, "max_epochs": 1}
    trainer = L.Trainer(accelerator="cpu", devices=world_size, **ddp, **options, **quiet)
    trainer.fit(model, DataLoader(Share(rank, world_size), JOINED // world_size))
    return model.state_dict()


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({name: train(share, rank, 2) for name, share in RESTARTS.items()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(run, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_both_processes_have_the_codebook_of_one(found: list[dict[str, dict[str, Tensor]]]) -> None:
    alone = train(0.0, 0, 1)
    start = build(None, SHAPE).state_dict()
    assert (alone["codebook.codes"] - start["codebook.codes"]).abs().max() > 0.1
    assert alone["codebook.counts"].sum().item() == pytest.approx((1 - 0.9**STEPS) * JOINED * 4)
    for process in found:
        torch.testing.assert_close(process["never"], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RESTARTS)
def test_both_processes_end_in_the_same_state(found: list[dict[str, dict[str, Tensor]]], name: str) -> None:
    first, second = (process[name] for process in found)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    # without restarts no feature is near most of the codes
    assert (first["codebook.counts"] > 0).all() == (name == "often")
