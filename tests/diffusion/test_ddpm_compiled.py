"""A compiled network learns what one that is not compiled does, and its checkpoints are the same.

Torch captures the network as graphs and runs these as they are: compiling them may take a minute.
"""

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from resuming import assert_identical, assert_resumes
from torch import Tensor, nn

from lit_generative import DDPM, VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA, Compile
from lit_generative.diffusion import DDIM, ClassifierFree, LossAwareTimes
from lit_generative.nn import DiT, UNet

SHAPE = (1, 28, 28)
MakeTrainer = Callable[..., L.Trainer]
Graphs = list[torch.fx.GraphModule]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet((1, 8, 8), (8,), 1, (), groups=4, patch=2, num_classes=3),
    "dit": lambda: DiT((1, 8, 8), 4, 8, 1, 2, num_classes=3),
}


class Tiny(nn.Module):
    """A network that compiles in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tanh(self.conv(x)) * t.view(-1, 1, 1, 1)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """Have networks captured but not compiled; return the graphs that are found."""
    found: Graphs = []
    original = nn.Module.compile

    def capture(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend=capture))
    torch._dynamo.reset()
    return found


def build() -> DDPM:
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.Adam, lr=1e-2)
    return DDPM(Tiny(), SHAPE, times=LossAwareTimes(num_bins=4, history=2), sampler=DDIM(2), optimizer=optimizer)


def train(
    model: DDPM, make_trainer: MakeTrainer, *compiles: Compile, steps: int = 4, path: Path | None = None
) -> tuple[list[float], L.Trainer]:
    """Return the losses of a run of a few steps with EMA and validation, and its trainer."""
    torch.manual_seed(0)
    losses: list[float] = []
    model.on_train_batch_end = lambda outputs, batch, i: losses.append(outputs["loss"].item())  # type: ignore[assignment]
    data = ImageDataModule(subset=100, batch_size=25)
    trainer = make_trainer(max_steps=steps, limit_val_batches=1, callbacks=[EMA(0.9), *compiles])
    trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    return losses, trainer


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_are_captured_whole(graphs: Graphs, make_trainer: MakeTrainer, name: str) -> None:
    torch.manual_seed(0)
    network, x, y = NETWORKS[name](), torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    names = list(network.state_dict())
    model = DDPM(network, (1, 8, 8), num_classes=3, guidance=ClassifierFree(2.0))
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        losses.append(model.losses(x, y)["loss"])
        Compile().setup(make_trainer(), model, "fit")
    assert len(graphs) == 1
    torch.testing.assert_close(losses[1], losses[0])
    assert list(network.state_dict()) == names


def test_a_compiled_run_equals_one_that_is_not(graphs: Graphs, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    models = build(), build()
    compiled, trainer = train(models[0], make_trainer, Compile())
    plain, _ = train(models[1], make_trainer)
    assert graphs
    assert compiled == plain
    assert_identical(dict(models[0].state_dict()), dict(models[1].state_dict()), "state")
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "compiled.ckpt", network=Tiny())
    assert loaded.weights == "ema 0.9"
    images = [model.sample(3, generator=torch.Generator().manual_seed(0)) for model in (*models, loaded)]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_a_compiled_run_goes_on_without_and_the_other_way_round(
    graphs: Graphs, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    whole, _ = train(build(), make_trainer, Compile(), steps=6)
    for first, second in (([Compile()], []), ([], [Compile()])):
        _, trainer = train(build(), make_trainer, *first, steps=3)
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        rest, _ = train(build(), make_trainer, *second, steps=6, path=tmp_path / "half.ckpt")
        assert rest == whole[3:]


def test_a_compiled_run_resumes_bit_for_bit(graphs: Graphs, make_trainer: MakeTrainer) -> None:
    def make_compiling(**options: Any) -> L.Trainer:
        return make_trainer(**options | {"callbacks": [*options["callbacks"], Compile()]})

    assert_resumes(build, make_compiling, (4, 7))  # at the end of the first epoch, in the middle of the second
    assert graphs


def test_a_part_of_any_model_is_compiled_for_training_alone(
    graphs: Graphs, make_vae: Callable[..., VAE], make_trainer: MakeTrainer
) -> None:
    model, data = make_vae(), ImageDataModule(subset=50, batch_size=25)
    trainer = make_trainer(max_steps=1, limit_val_batches=0, limit_test_batches=1, callbacks=[Compile("decoder")])
    trainer.test(model, datamodule=data)
    assert not graphs
    trainer.fit(model, datamodule=data)
    assert len(graphs) == 1


def test_a_part_that_is_not_there_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="part='encoder': the model has no such submodule; it has network, times"):
        make_trainer(callbacks=[Compile("encoder")]).fit(build(), datamodule=ImageDataModule(subset=50))


@pytest.mark.skipif("TEST_COMPILER" not in os.environ, reason="takes 10 to 100 s; TEST_COMPILER=1 has it run")
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs a C++ compiler")
def test_torchs_own_compiler_gives_the_same_losses(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # starting workers takes longer than it saves
    torch._dynamo.reset()
    model, plain = build(), build()
    x = torch.rand(8, *SHAPE)
    Compile().setup(make_trainer(), model, "fit")
    gradients = []
    for each in (model, plain):
        torch.manual_seed(1)
        loss = each.losses(x)["loss"].mean()
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad for parameter in each.parameters())])
    torch.testing.assert_close(*gradients)
