"""Two processes keep the codebook that one keeps with their joined batches."""

import functools

import pytest
import torch
from processes import JOINED, SHAPE, fit, run_in_two
from torch import Tensor
from vq_models import build

STEPS = 4
RESTARTS = {"never": 0.0, "often": 0.7}


def train(restart_below: float, rank: int, world_size: int) -> dict[str, Tensor]:
    """Train, under plain ddp if there are several processes, and return the state reached."""
    sgd = functools.partial(torch.optim.SGD, lr=1e-4)
    model = build(None, SHAPE, codebook={"restart_below": restart_below}, optimizer=sgd)
    fit(model, rank, world_size, STEPS)
    return model.state_dict()


def run(rank: int, folder: str) -> None:
    torch.save({name: train(share, rank, 2) for name, share in RESTARTS.items()}, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    run_in_two(run, folder)
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
