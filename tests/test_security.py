"""Files that nobody trusts: nothing in them runs, is imported or is opened, and damage is noticed."""

import json
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch_fidelity  # noqa: F401  imported, as in any process that evaluates
import yaml
from safetensors.torch import load_file, save_file

from lit_generative import VAE, GenerativeModule, ImageDataModule
from lit_generative.checkpoints import data_of, model_of, read_checkpoint
from lit_generative.cli import main
from lit_generative.description import MOST_VALUES, rebuild
from lit_generative.evaluation.cache import TensorCache
from lit_generative.evaluation.features import FASHION_WEIGHTS, load_extractor
from lit_generative.files import MOST_NODES, read_yaml
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import GaussianLikelihood

INCEPTION = "torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3"
CODE = "from pathlib import Path\nPath('ran').touch()\nclass Evil:\n    pass\n"


class Touches:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path("ran").touch, ()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound one."""
    folder = tmp_path_factory.mktemp("sound")
    encoder, decoder = (cls((1, 28, 28), 4, hidden=(8,)) for cls in (MLPEncoder, MLPDecoder))
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(VAE(encoder, decoder, GaussianLikelihood(), 4), datamodule=ImageDataModule(subset=100, batch_size=50))
    trainer.save_checkpoint(folder / "sound.ckpt")
    return folder / "sound.ckpt"


@pytest.fixture
def hostile(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], Path]:
    """Return a function that writes a checkpoint whose contents a given function has changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        contents = torch.load(checkpoint, weights_only=True)
        change(contents)
        torch.save(contents, tmp_path / "hostile.ckpt")
        return tmp_path / "hostile.ckpt"

    return write


def named(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


@pytest.mark.parametrize(
    "part",
    [
        named(INCEPTION, name="x", features_list=["64"], feature_extractor_weights_path="weights.pth"),
        named("torch.nn.parallel.DistributedDataParallel", module=None),
        named("torchmetrics.Metric"),
        named("pathlib.PosixPath"),
        named("lightning.pytorch.Trainer"),
        named("lit_generative.evaluation.published_features.InceptionExtractor", weights="weights.pth"),
        named("lit_generative.loggers.WandbLogger"),
        named("evil_module.Evil"),
        {"partial": "os.system", "keywords": {"command": "touch ran"}},
        {"import_path": "subprocess.Popen"},
        [named("torch.nn.Linear", in_features=1, out_features=named(INCEPTION))],
    ],
    ids=lambda value: str(value)[-40:],
)
@pytest.mark.parametrize("place", ["encoder", "optimizer"])
def test_a_checkpoint_builds_nothing_but_what_is_made_for_it(
    hostile: Callable, tmp_path: Path, part: Any, place: str
) -> None:
    torch.save(Touches(), tmp_path / "weights.pth")
    path = hostile(lambda c: c["lit_generative"]["model"]["init_args"].update({place: part}))
    with pytest.raises((ValueError, ImportError), match=r"is not called from a file|is not imported"):
        GenerativeModule.load_from_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        named("evil_module.Evil"),
        named(INCEPTION),
        named("lit_generative.data.module.ImageDataModule", binarise="evil_module.Evil"),
        named("lit_generative.data.module.ImageDataModule", binarise=named("evil_module.Evil")),
        named("lit_generative.data.module.ImageDataModule", batch_size=["evil_module.Evil"]),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_the_data_that_a_checkpoint_names_go_through_the_same_gate(hostile: Callable, data: Any) -> None:
    path = hostile(lambda c: c["lit_generative"].update(data=data))
    with pytest.raises((ValueError, ImportError), match=r"are refused|is not imported"):
        data_of(read_checkpoint(path))
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [
        "evil_module.Evil",
        "{class_path: evil_module.Evil}",
        named("evil_module.Evil"),
        ["evil_module.Evil"],
        [["evil_module.Evil"]],
        {"x": "evil_module.Evil"},
        {"partial": "evil_module.Evil", "keywords": {}},
        {"import_path": "evil_module.Evil"},
        {"opaque": "evil_module.Evil", "is_module": True},
        named("torch.nn.Linear", in_features="evil_module.Evil", out_features=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["encoder", "optimizer", "likelihood", "prior_model", "latent_dim"])
def test_a_new_run_takes_no_model_that_names_more_than_a_file_may(hostile: Callable, value: Any, place: str) -> None:
    path = hostile(lambda c: c["lit_generative"]["model"]["init_args"].update({place: value}))
    with pytest.raises((ValueError, ImportError), match=r"are refused|is not imported|which no file describes"):
        model_of(read_checkpoint(path))
    assert "evil_module" not in sys.modules


def test_text_of_a_network_that_may_also_be_a_file_is_no_class(hostile: Callable) -> None:
    guide = named(
        "lit_generative.diffusion.checkpoint_guidance.CheckpointGuidance", guide="evil_module.Evil", scale=2.0
    )
    path = hostile(lambda c: c["lit_generative"]["model"]["init_args"].update(guidance=guide))
    with pytest.raises(ValueError, match=r"are refused: guide is .evil_module\.Evil., which a parser"):
        model_of(read_checkpoint(path))


def test_a_hostile_model_ends_a_new_run_in_a_sentence(hostile: Callable, capsys: pytest.CaptureFixture) -> None:
    path = hostile(lambda c: c["lit_generative"]["model"]["init_args"].update(encoder="evil_module.Evil"))
    assert main(["fit", "--from", str(path)]) == 1
    assert "are refused: encoder is 'evil_module.Evil', which a parser would import" in capsys.readouterr().err
    assert "evil_module" not in sys.modules
    assert not Path("runs").exists()


def test_sound_data_pass_the_gate(checkpoint: Path) -> None:
    found = data_of(read_checkpoint(checkpoint))
    assert found is not None
    assert found["class_path"].endswith("ImageDataModule")


def test_a_flipped_bit_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    sound, rng = checkpoint.read_bytes(), random.Random(0)
    expected = read_checkpoint(checkpoint)["state_dict"]
    noticed = 0
    for _ in range(200):
        place = rng.randrange(len(sound))
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        try:
            found = read_checkpoint(tmp_path / "damaged.ckpt")["state_dict"]
        except ValueError:
            noticed += 1
        else:  # in the padding between two members
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert noticed > 150


def test_a_compressed_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(checkpoint) as sound, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w") as bomb:
        for member in sound.infolist():
            bomb.writestr(member.filename, sound.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is refused"):
        read_checkpoint(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
@pytest.mark.parametrize("place", ["data", "hyper_parameters", "model"])
def test_no_command_imports_what_a_checkpoint_names(
    hostile: Callable, tmp_path: Path, command: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = named("evil_module.Evil")

    def change(contents: dict[str, Any]) -> None:
        if place == "hyper_parameters":
            contents["hyper_parameters"] = {"_class_path": "evil_module.Evil", "_instantiator": "evil_module.Evil"}
            contents["lit_generative"]["data"] = evil  # and the run ends there
        else:
            contents["lit_generative"][place] = evil

    config = ["--config", "vae/mlp"] if command == "fit" else []
    assert main([command, *config, "--ckpt_path", str(hostile(change)), "--trainer.max_steps", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, "one sentence"
    assert "evil_module" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_hyper_parameters_are_not_followed(hostile: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GENERATIVE_CACHE", str(tmp_path / "cache"))
    path = hostile(lambda c: c.update(hyper_parameters={"_class_path": "evil_module.Evil", "x": 1}))
    small = ["--trainer.limit_test_batches", "1", "--evaluation.num_samples", "20", "--evaluation.num_real", "20"]
    assert main(["test", "--ckpt_path", str(path), *small, "--likelihood.num_images", "2"]) == 0
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("value", ["not a number", 1.5, None, -1])
def test_counters_that_are_no_numbers_are_damage(hostile: Callable, value: Any) -> None:
    path = hostile(lambda c: c["lit_generative"]["state"].update(images_seen=value))
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(path)


def test_an_endless_description_is_refused_at_once() -> None:
    description: Any = [0] * 10
    for _ in range(20):
        description = [description] * 10
    with pytest.raises(ValueError, match=f"{MOST_VALUES:,} values"):
        rebuild(description)


@pytest.mark.parametrize(
    "network",
    [
        named(INCEPTION, name="x", features_list=["64"], feature_extractor_weights_path="weights.pth"),
        named("evil_module.Evil"),
        named("torch.nn.modules.linear.Linear", in_features=1, out_features=1),
        "text",
        None,
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_extractor_is_a_classifier_and_nothing_else(tmp_path: Path, network: Any) -> None:
    torch.save(Touches(), tmp_path / "weights.pth")
    path = tmp_path / "hostile.safetensors"
    save_file(load_file(FASHION_WEIGHTS), path, {"network": json.dumps(network), "class_names": "[]"})
    with pytest.raises(ValueError, match="was not written by `lit-generative extractor`"):
        load_extractor(path)
    assert "evil_module" not in sys.modules
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "content", [Touches(), {"weight": torch.zeros(1)}, [1, 2], None], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_of_inception_are_weights(
    tmp_path: Path, content: Any, is_zip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "inception.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="inception") as caught:
        load_extractor(f"inception:{tmp_path / 'inception.pth'}")
    assert "weights_only" not in str(caught.value), "no advice to run it"
    assert not Path("ran").exists()


def test_a_flipped_bit_in_cached_statistics_is_computed_again(tmp_path: Path) -> None:
    cache, key = TensorCache(str(tmp_path)), {"data": "these"}
    features = torch.randn(50, 8)
    cache.get(key, lambda: {"features": features})
    (file,) = tmp_path.iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[-7] ^= 4
    file.write_bytes(damaged)
    assert torch.equal(cache.get(key, lambda: {"features": features})["features"], features)


def bomb(levels: int, merge: bool) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}" if merge else "a0: &a0 [x, x, x]"]
    for i in range(1, levels):
        aliases = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} {{<<: [{aliases}]}}" if merge else f"a{i}: &a{i} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [True, False])
def test_a_yaml_bomb_is_refused(tmp_path: Path, merge: bool, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.yaml").write_text(bomb(12, merge))
    assert main(["fit", "--config", str(tmp_path / "bomb.yaml")]) == 1
    assert f"{MOST_NODES:,} values" in capsys.readouterr().err


def test_ordinary_aliases_are_fine(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text(bomb(4, merge=False))
    assert read_yaml(tmp_path / "fine.yaml") == yaml.safe_load(bomb(4, merge=False))


def test_a_file_that_may_not_be_read_is_not_called_damaged(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(checkpoint))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(OSError, match="cannot be read: Permission denied"):
        read_checkpoint(checkpoint)
