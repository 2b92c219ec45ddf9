"""Two processes train the DDPM that one process trains on their joined batches."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import JOINED, SHAPE, fit, run_in_two
from torch import Tensor

from lit_generative import DDPM
from lit_generative.diffusion import ClassifierFree, CosineSchedule, LearnedVariance, LossAwareTimes, VelocityPrediction
from lit_generative.nn import LowRankAdapters, UNet

STEPS = 6
Found = dict[str, dict[str, Any]]


class JoinedDDPM(DDPM):
    """Draws the times and noise of the joined batch of all processes, and takes its own part of them."""

    def sample_time(self, n: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(self.trainer.global_step)
            t, importance = super().sample_time(n * self.trainer.world_size)
        return self.own(t), self.own(importance)

    def losses_at(self, t: Tensor, x: Tensor, noise: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(self.trainer.global_step)
        joined = torch.randn(len(x) * self.trainer.world_size, *SHAPE, generator=source)
        return super().losses_at(t, x, self.own(joined), y)

    def own(self, joined: Tensor) -> Tensor:
        return joined.chunk(self.trainer.world_size)[self.global_rank]


def build(
    cls: type[DDPM] = JoinedDDPM,
    output_multiple: int = 1,
    lr: float = 0.3,
    adapters: LowRankAdapters | None = None,
    **options: Any,
) -> DDPM:
    torch.manual_seed(0)
    ways: dict[str, Any] = {"num_classes": 3, "output_multiple": output_multiple, "adapters": adapters}
    network = UNet(SHAPE, (8, 16), 1, (), groups=4, **ways)
    optimizer = functools.partial(torch.optim.SGD, lr=lr)
    return cls(network, SHAPE, CosineSchedule(), VelocityPrediction(), num_classes=3, optimizer=optimizer, **options)


def adapted() -> DDPM:
    model = build(adapters=LowRankAdapters(2, also=["head*"]))  # a new network answers 0 until its head is trained
    model.origin = {"checkpoint": "here"}  # so that it may be trained
    return model


MODELS: dict[str, Callable[[], DDPM]] = {
    "uniform": build,
    "adapted": adapted,
    "loss-aware": lambda: build(times=LossAwareTimes(num_bins=4, history=2)),
    "variance": lambda: build(output_multiple=2, lr=0.05, variance=LearnedVariance(weight=0.01, num_steps=100)),
    "own-noise": lambda: build(
        DDPM, times=LossAwareTimes(num_bins=4, history=2), guidance=ClassifierFree(2.0, label_dropout=0.2)
    ),
}


def train(model: DDPM, rank: int, world_size: int) -> dict[str, Any]:
    """Train, under plain ddp if there are several processes, and return the state reached."""
    drawn: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    trainer = fit(model, rank, world_size, STEPS)
    counted = {"step": trainer.global_step, "images_seen": model.images_seen}
    return {"state": model.state_dict(), "counted": counted, "times": torch.stack(drawn)}


def run(rank: int, folder: str) -> None:
    torch.save({name: train(make(), rank, 2) for name, make in MODELS.items()}, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder: Path = tmp_path_factory.mktemp("processes")
    run_in_two(run, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ["uniform", "adapted", "loss-aware", "variance"])
def test_both_processes_have_the_weights_of_one(found: list[Found], name: str) -> None:
    alone = train(MODELS[name](), 0, 1)
    assert alone["counted"] == {"step": STEPS, "images_seen": STEPS * JOINED}
    start = MODELS[name]().state_dict()
    moved = [(alone["state"][key] - value).abs().max() for key, value in start.items() if key.startswith("network")]
    assert max(moved) > 1e-2
    torch.testing.assert_close(torch.cat([process[name]["times"] for process in found], 1), alone["times"])
    for process in found:
        assert process[name]["counted"] == alone["counted"]
        torch.testing.assert_close(process[name]["state"], alone["state"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_both_processes_end_in_the_same_state(found: list[Found], name: str) -> None:
    states = [process[name]["state"] for process in found]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize("name", ["loss-aware", "own-noise"])
def test_times_are_told_the_losses_of_both(found: list[Found], name: str) -> None:
    for process in found:
        assert (process[name]["state"]["times.counts"] >= 2).all()  # so that times were chosen by the losses
        assert (process[name]["state"]["times.mean_squares"] > 0).all()
    if name == "own-noise":
        assert not torch.equal(*(process[name]["times"] for process in found))
