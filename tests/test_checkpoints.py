"""What a checkpoint rebuilds, in this process and in a new one, and what it is refused for."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn

from lit_generative import VAE, GenerativeModule, ImageDataModule
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import GaussianLikelihood

USER_MODULE = """
import torch
from torch import nn
from lit_generative import VAE, Described

class OwnDecoder(Described, nn.Module):
    def __init__(self, latent_dim, width=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, 784))

    def forward(self, z, y=None):
        return self.layers(z).unflatten(1, (1, 28, 28))

class BetaVAE(VAE):
    def __init__(self, encoder, decoder, likelihood, latent_dim, beta=2.0):
        super().__init__(encoder, decoder, likelihood, latent_dim)
        self.beta = beta

    def objective(self, nll, kl):
        return nll + self.beta * kl
"""

NEW_PROCESS = """
import torch
from lit_generative import GenerativeModule
try:
    GenerativeModule.load_from_checkpoint("model.ckpt")
except ImportError as error:
    print("refused:", error)
import users_models
model = GenerativeModule.load_from_checkpoint("model.ckpt")
assert type(model) is users_models.BetaVAE and model.beta == 7.0
torch.save(model.sample(5, generator=torch.Generator().manual_seed(1)), "drawn.pt")
"""

Save = Callable[..., Path]


class Handmade(nn.Module):
    """A decoder around layers that were put together by hand."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(z)


class Other(GenerativeModule):
    pass


@pytest.fixture
def save(make_trainer: Callable[..., L.Trainer], tmp_path: Path) -> Save:
    """Train a model for two steps on real images and save it."""

    def train_and_save(model: L.LightningModule, name: str = "model.ckpt") -> Path:
        trainer = make_trainer(max_steps=2, limit_val_batches=0)
        trainer.fit(model, datamodule=ImageDataModule(subset=20, batch_size=10))
        trainer.save_checkpoint(tmp_path / name)
        return tmp_path / name

    return train_and_save


@pytest.fixture
def users_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user's, outside the package."""
    (tmp_path / "users_models.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_models", raising=False)
    return import_module("users_models")


def draw(model: GenerativeModule) -> Tensor:
    return model.sample(5, generator=torch.Generator().manual_seed(1))


def altered(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change what a checkpoint says of its model, as one who means harm could."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint["lit_generative"])
    torch.save(checkpoint, path)
    return path


def test_class_networks_weights_and_counters_come_back(make_vae: Callable[..., VAE], save: Save) -> None:
    model = make_vae()
    loaded = GenerativeModule.load_from_checkpoint(save(model))
    assert type(loaded) is VAE
    assert torch.equal(draw(loaded), draw(model))
    assert (loaded.images_seen, loaded.weights) == (20, "raw")
    assert str(loaded.make_optimizer) == str(model.make_optimizer)


def test_a_file_holds_plain_data_and_the_models_weights_only(make_vae: Callable[..., VAE], save: Save) -> None:
    model = make_vae()
    checkpoint = torch.load(save(model), weights_only=True)
    assert checkpoint["state_dict"].keys() == model.state_dict().keys()
    description = checkpoint["lit_generative"]["model"]
    assert description["class_path"] == "lit_generative.vae.module.VAE"
    assert description["init_args"]["encoder"]["init_args"]["hidden"] == (64,)
    assert checkpoint["lit_generative"]["data"]["init_args"] == {"subset": 20, "batch_size": 10}


def test_a_users_model_comes_back_in_a_new_process(users_models: ModuleType, save: Save, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = MLPEncoder((1, 28, 28), 4, hidden=(16,)), users_models.OwnDecoder(4, width=24)
    model = users_models.BetaVAE(*networks, GaussianLikelihood(), 4, beta=7.0)
    save(model)
    done = subprocess.run(
        [sys.executable, "-c", NEW_PROCESS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "refused: checkpoint model.ckpt: users_models.BetaVAE is not imported; `import users_models`" in done.stdout
    assert torch.equal(torch.load(tmp_path / "drawn.pt"), draw(model))


def test_a_network_put_together_by_hand_must_be_passed_in(save: Save) -> None:
    def handmade() -> Handmade:
        return Handmade(nn.Sequential(nn.Linear(4, 784), nn.Unflatten(1, (1, 28, 28))))

    model = VAE(MLPEncoder((1, 28, 28), 4), handmade(), GaussianLikelihood(), 4)
    path = save(model)
    with pytest.raises(ValueError, match=r"'decoder' was a .*Handmade.*pass decoder=… when loading"):
        GenerativeModule.load_from_checkpoint(path)
    assert torch.equal(draw(VAE.load_from_checkpoint(path, decoder=handmade())), draw(model))


def test_a_network_of_other_sizes_does_not_fit(make_vae: Callable[..., VAE], save: Save) -> None:
    with pytest.raises(ValueError, match=r"weights do not fit: .*decoder\.head\.\w+: \("):
        VAE.load_from_checkpoint(save(make_vae()), decoder=MLPDecoder((1, 28, 28), 8, hidden=(32,)))


def test_a_file_of_another_class_is_refused(make_vae: Callable[..., VAE], users_models: ModuleType, save: Save) -> None:
    path = save(make_vae())
    with pytest.raises(ValueError, match=r"it holds a lit_generative\.vae\.module\.VAE, which is not a BetaVAE"):
        users_models.BetaVAE.load_from_checkpoint(path)
    with pytest.raises(ValueError, match="which is not a Other"):
        Other.load_from_checkpoint(path)


def test_a_class_that_is_gone_is_named(make_vae: Callable[..., VAE], save: Save) -> None:
    path = altered(save(make_vae()), lambda c: c["model"].update(class_path="lit_generative.vae.module.Gone"))
    with pytest.raises(ImportError, match=r"lit_generative\.vae\.module\.Gone is gone"):
        GenerativeModule.load_from_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(make_vae: Callable[..., VAE], save: Save, share: float) -> None:
    path = save(make_vae())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model\.ckpt is refused: it is damaged, cut off or not one at all"):
        GenerativeModule.load_from_checkpoint(path)


@pytest.mark.parametrize("content", [b"hello", b"bad\n", b"\x80\x02garbage", bytes(1000), b"PK\x03\x04" + bytes(100)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint .*model\.ckpt is refused"):
        GenerativeModule.load_from_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "model", [None, {}, 5, {"class_path": "lit_generative.VAE"}, {"class_path": 5, "init_args": {}}]
)
def test_a_file_that_does_not_say_what_it_holds_is_refused(tmp_path: Path, model: Any) -> None:
    torch.save({"state_dict": {}, "lit_generative": {"format": 2, "model": model}}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="was not written by lit_generative"):
        GenerativeModule.load_from_checkpoint(tmp_path / "model.ckpt")


def test_a_checkpoint_of_another_lightning_module_is_refused(
    make_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer()
    trainer.strategy.connect(BoringModel())
    trainer.save_checkpoint(tmp_path / "boring.ckpt")
    with pytest.raises(ValueError, match="was not written by lit_generative: it does not say which model it holds"):
        GenerativeModule.load_from_checkpoint(tmp_path / "boring.ckpt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            GenerativeModule.load_from_checkpoint(path)


@pytest.mark.parametrize("number", [1, 99])
def test_another_format_is_refused(make_vae: Callable[..., VAE], save: Save, number: int) -> None:
    with pytest.raises(ValueError, match=f"has format {number}; this version reads format 2$"):
        GenerativeModule.load_from_checkpoint(altered(save(make_vae()), lambda c: c.update(format=number)))


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_code_in_a_file_is_not_run(make_vae: Callable[..., VAE], save: Save, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    checkpoint = torch.load(save(make_vae()), weights_only=True)
    torch.save(checkpoint | {"extra": Malicious(f"touch {marker}")}, tmp_path / "zip.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Malicious(f"touch {marker}"), protocol=2))
    for name in ("zip.ckpt", "pickle.ckpt"):
        with pytest.raises(ValueError, match="it holds code or objects, not only weights and plain data"):
            GenerativeModule.load_from_checkpoint(tmp_path / name)
    assert not marker.exists()
    torch.load(tmp_path / "zip.ckpt", weights_only=False)
    assert marker.exists()  # so the file was dangerous indeed


@pytest.mark.parametrize(
    "change",
    [
        lambda c, command: c.update(model={"class_path": "os.system", "init_args": {"command": command}}),
        lambda c, command: c["model"]["init_args"].update(
            encoder={"class_path": "os.system", "init_args": {"command": command}}
        ),
        lambda c, command: c["model"]["init_args"].update(
            encoder={"class_path": "subprocess.Popen", "init_args": {"args": command, "shell": True}}
        ),
        lambda c, command: c["model"]["init_args"].update(
            optimizer={"partial": "os.system", "keywords": {"command": command}}
        ),
        lambda c, command: c["model"]["init_args"].update(optimizer={"import_path": "os.system"}),
        lambda c, command: c.update(model={"class_path": "antigravity.Network", "init_args": {}}),
        lambda c, command: c.update(model={"class_path": "lit_generative.cli.main", "init_args": {"argv": ["--help"]}}),
    ],
)
def test_a_hostile_description_runs_and_imports_nothing(
    make_vae: Callable[..., VAE], save: Save, tmp_path: Path, change: Callable[[dict[str, Any], str], Any]
) -> None:
    path = altered(save(make_vae()), lambda contents: change(contents, f"touch {tmp_path}/marker"))
    with pytest.raises((ValueError, ImportError), match=r"^checkpoint .*model\.ckpt: \w+"):
        GenerativeModule.load_from_checkpoint(path)
    assert not (tmp_path / "marker").exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "arguments",
    [{"encoder": {"class_path": 3, "init_args": {}}}, {"encoder": {"class_path": "torch.nn.Linear", "init_args": 4}}],
)
def test_a_malformed_description_is_one_clear_error(make_vae: Callable[..., VAE], save: Save, arguments: dict) -> None:
    path = save(make_vae())
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lit_generative"]["model"]["init_args"] |= arguments
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"^checkpoint .*: "):
        GenerativeModule.load_from_checkpoint(path)
