"""What a checkpoint cannot hold is said when the training starts, and what it can hold is loaded again."""

import functools
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lit_generative import VAE, Described, ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import GaussianLikelihood

SHAPE = (1, 28, 28)
Train = Callable[[VAE], Path]


class Tone(str, Enum):
    DARK = "dark"


class Anything(Described, nn.Module):
    """A network of a user's that takes an argument of any kind."""

    def __init__(self, value: Any = None, *widths: int, name: str = "") -> None:
        super().__init__()
        self.value, self.widths, self.name = value, widths, name
        self.encoder = MLPEncoder(SHAPE, 4, (8,))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return self.encoder(x, y)


class WithTensor(Anything):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3)


class Options(VAE):
    """A user's model with an argument of its own."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, option: Any = None) -> None:
        super().__init__(encoder, decoder, GaussianLikelihood(), 4)
        self.option = option


def vae(encoder: nn.Module, **options: Any) -> VAE:
    return VAE(encoder, MLPDecoder(SHAPE, 4, (8,)), GaussianLikelihood(), 4, **options)


@pytest.fixture
def train(make_trainer: Callable[..., L.Trainer], data: ImageDataModule, tmp_path: Path) -> Train:
    """Train a model for a step and return its checkpoint."""

    def run(model: VAE) -> Path:
        checkpoint = ModelCheckpoint(tmp_path / "kept", filename="last")
        options = {"callbacks": [checkpoint], "enable_checkpointing": True, "limit_val_batches": 0}
        make_trainer(max_epochs=1, limit_train_batches=1, **options).fit(model, data)
        return tmp_path / "kept" / "last.ckpt"

    return run


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Path("a/b"), "a/b"),
        (Tone.DARK, "dark"),
        ([np.int8(1), {"k": Path("c")}], [1, {"k": "c"}]),
        (torch.Size([1, 2]), (1, 2)),
    ],
)
def test_plain_numbers_and_paths_are_converted(given: Any, kept: Any) -> None:
    described = describe(Anything(given))["init_args"]["value"]
    assert described == kept
    assert type(described) is type(kept)
    assert rebuild(describe(Anything(given))).value == kept


def test_a_list_of_positional_arguments_is_rebuilt() -> None:
    rebuilt = rebuild(describe(Anything(None, 8, np.int64(16), name="x")))
    assert (rebuilt.value, rebuilt.widths, rebuilt.name) == (None, (8, 16), "x")


@pytest.mark.parametrize(
    "value",
    [
        torch.float16,
        torch.ones(2),
        torch.tensor(1.0),
        {1, 2},
        np.ones(3),
        range(3),
        object(),
        torch.device("cpu"),
        b"x",
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_cannot_be_described_are_refused_before_the_training(value: Any, train: Train) -> None:
    message = r"the argument encoder\.value of VAE is a .*, which a checkpoint cannot describe: give plain data"
    with pytest.raises(ValueError, match=message):
        train(vae(Anything(value)))
    with pytest.raises(ValueError, match=r"the argument option of Options is a"):
        train(Options(MLPEncoder(SHAPE, 4, (8,)), MLPDecoder(SHAPE, 4, (8,)), value))


@pytest.mark.parametrize("function", [torch.relu, lambda x: x])
def test_functions_within_networks_are_refused_before_the_training(function: Callable, train: Train) -> None:
    with pytest.raises(ValueError, match=r"encoder\.value of VAE is a .*: give a class"):
        train(vae(Anything(function)))


def test_classes_that_are_defined_in_a_function_are_refused_before_the_training(train: Train) -> None:
    class LocalEncoder(Anything):
        pass

    class LocalVAE(VAE):
        pass

    with pytest.raises(ValueError, match=r"encoder of VAE is a .*LocalEncoder.*defined in a function"):
        train(vae(LocalEncoder()))
    model = LocalVAE(MLPEncoder(SHAPE, 4, (8,)), MLPDecoder(SHAPE, 4, (8,)), GaussianLikelihood(), 4)
    with pytest.raises(ValueError, match="LocalVAE is defined in a function"):
        train(model)


def test_without_checkpoints_nothing_has_to_be_described(
    make_trainer: Callable[..., L.Trainer], data: ImageDataModule
) -> None:
    make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(vae(Anything({1, 2})), data)


def test_what_can_be_passed_when_loading_is_a_warning(train: Train) -> None:
    with pytest.warns(UserWarning, match=r"argument optimizer of VAE is a .*lambda.*: pass optimizer=… when loading"):
        train(vae(MLPEncoder(SHAPE, 4, (8,)), optimizer=lambda p: torch.optim.SGD(p, lr=1e-6)))
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 8))
    with pytest.warns(UserWarning, match=r"encoder\.value of VAE is a .*Sequential.*pass encoder=… when loading"):
        train(vae(Anything(network)))


def test_a_tensor_kept_as_an_attribute_is_a_warning(train: Train) -> None:
    with pytest.warns(UserWarning, match=r"encoder\.scale is a tensor that WithTensor keeps as an attribute.*Buffer"):
        train(vae(WithTensor()))


def test_a_class_that_a_notebook_defines_again_is_loaded(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Anything(3)
    again = type("Anything", (Described, nn.Module), dict(vars(Anything)) | {"__init__": Anything.__init__})
    again.__qualname__ = "Anything"
    monkeypatch.setitem(Anything.__init__.__globals__, "Anything", again)
    monkeypatch.setattr(again, "__init__", _again_init, raising=False)
    path = train(vae(encoder))
    assert VAE.load_from_checkpoint(path).encoder.value == 3


def _again_init(self: Any, value: Any = None, *widths: int, name: str = "") -> None:
    nn.Module.__init__(self)
    self.value, self.widths, self.name = value, widths, name
    self.encoder = MLPEncoder(SHAPE, 4, (8,))


def test_a_compiled_network_is_saved_and_loaded(
    train: Train, make_trainer: Callable[..., L.Trainer], data: ImageDataModule
) -> None:
    compiled = functools.partial(torch.compile, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", module="lightning")
        model = vae(compiled(MLPEncoder(SHAPE, 4, (8,))))
        path = train(model)
    loaded = VAE.load_from_checkpoint(path)
    assert isinstance(loaded.encoder, MLPEncoder)
    assert not [key for key in torch.load(path, weights_only=True)["state_dict"] if "_orig_mod" in key]
    images = torch.zeros(2, *SHAPE)
    assert torch.equal(loaded.posterior_means(images), model.posterior_means(images))
    again = vae(compiled(MLPEncoder(SHAPE, 4, (8,))))  # and a run goes on with a compiled one
    trainer = make_trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(again, data, ckpt_path=path, weights_only=True)
    assert trainer.global_step == 2
