"""Low-rank adapters: nothing is changed at first, they alone are trained, and merged they are plain weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from resuming import assert_resumes
from torch import Tensor, nn

from lit_generative import DDPM, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.checkpoints import read_adapters, read_checkpoint
from lit_generative.description import describe
from lit_generative.diffusion import DDIM, AutoGuidance, CosineSchedule
from lit_generative.exporting import export_checkpoint, load_adapters
from lit_generative.fine_tuning import take_weights
from lit_generative.nn import DiT, LowRankAdapters, UNet
from lit_generative.nn.adapters import is_added, merged_state

SHAPE = (1, 28, 28)
ADAPTERS = LowRankAdapters(2, alpha=4, also=["*norm1.weight"])


def unet(adapters: LowRankAdapters | None = None, **options: Any) -> DDPM:
    network = UNet(SHAPE, (8, 8), 1, (1,), groups=4, patch=4, adapters=adapters)
    return DDPM(network, SHAPE, CosineSchedule(), sampler=DDIM(2), **options)


def transformer(adapters: LowRankAdapters | None = None) -> DDPM:
    network = DiT(SHAPE, patch=7, dim=16, depth=1, heads=2, adapters=adapters)
    return DDPM(network, SHAPE, sampler=DDIM(2), guidance=AutoGuidance(2.0, keep_at=0.1))


NETWORKS: dict[str, Callable[..., DDPM]] = {"unet": unet, "dit": transformer}


def adapters_of(name: str) -> LowRankAdapters:
    return ADAPTERS if name == "unet" else LowRankAdapters(2)


def fit(model: DDPM, folder: Path, steps: int = 6, **options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"num_sanity_val_steps": 0, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        max_steps=steps,
        limit_val_batches=1,
        val_check_interval=2,
        callbacks=[EMA(0.9)],
        default_root_dir=folder,
        **quiet,
        **options,
    )
    trainer.fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    return trainer


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained networks without adapters."""
    folder, paths = tmp_path_factory.mktemp("bases"), {}
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        fit(make(), folder).save_checkpoint(paths.setdefault(name, folder / f"{name}.ckpt"))
    return paths


@pytest.fixture(scope="module")
def tuned(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same networks with adapters that were trained."""
    folder, paths = tmp_path_factory.mktemp("tuned"), {}
    for name, make in NETWORKS.items():
        torch.manual_seed(1)
        model = make(adapters_of(name))
        take_weights(model, bases[name])
        fit(model, folder).save_checkpoint(paths.setdefault(name, folder / f"{name}.ckpt"))
    return paths


def load(path: Path) -> Any:
    return GenerativeModule.load_from_checkpoint(path)


def draw(model: GenerativeModule) -> Tensor:
    return model.sample(4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_changed_at_first(bases: dict[str, Path], name: str) -> None:
    torch.manual_seed(2)
    model, base = NETWORKS[name](adapters_of(name)), load(bases[name])
    taken = take_weights(model, bases[name])
    assert taken.parameters[0] == taken.parameters[1]
    assert taken.adapters > 0
    x, t = torch.randn(3, *SHAPE), torch.rand(3)
    assert torch.equal(model.network(x, t), base.network(x, t))
    assert model.network(x, t).abs().max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_adapters_and_what_was_asked_for_are_trained_alone(
    bases: dict[str, Path], tuned: dict[str, Path], name: str
) -> None:
    base, after = load(bases[name]).state_dict(), load(tuned[name])
    merged = merged_state(after)
    trained = {n for n, p in after.network.named_parameters() if p.requires_grad}
    asked = {n for n in trained if not is_added(n)}
    assert bool(asked) == (name == "unet")
    assert all(n.endswith("norm1.weight") for n in asked)
    for key, value in after.network.state_dict().items():
        plain = f"network.{key.replace('parametrizations.weight.original', 'weight')}"
        if not is_added(key):
            assert torch.equal(value, base[plain]) == (key not in asked), key
    changed = [key for key in base if key.startswith("network.") and not torch.equal(base[key], merged[key])]
    assert any("qkv" in key for key in changed)
    assert any("qkv" not in key for key in changed)
    assert not torch.equal(draw(load(bases[name])), draw(after))


@pytest.mark.parametrize("name", NETWORKS)
def test_merged_networks_are_plain_and_draw_the_same(tuned: dict[str, Path], name: str, tmp_path: Path) -> None:
    export_checkpoint(tuned[name], tmp_path / "plain.ckpt", merge_adapters=True)
    adapted, plain = load(tuned[name]), load(tmp_path / "plain.ckpt")
    assert not any(map(is_added, plain.state_dict()))
    assert plain.network.adapters is None
    assert describe(plain.network)["init_args"] == describe(adapted.network)["init_args"] | {"adapters": None}
    torch.testing.assert_close(draw(plain), draw(adapted), rtol=0, atol=1e-5)
    assert (plain.images_seen, plain.origin, plain.weights) == (adapted.images_seen, adapted.origin, adapted.weights)
    taken = take_weights(NETWORKS[name](), tmp_path / "plain.ckpt")
    assert not taken.new
    assert not taken.left


@pytest.mark.parametrize("name", NETWORKS)
def test_the_small_file_and_its_base_make_the_model(bases: dict[str, Path], tuned: dict[str, Path], name: str) -> None:
    alone = tuned[name].with_suffix(".adapters.pt")
    weights = read_adapters(alone)["state_dict"]
    whole = read_checkpoint(tuned[name])["state_dict"]
    assert sum(w.numel() for w in weights.values()) < 0.7 * sum(w.numel() for w in whole.values())
    model = load_adapters(bases[name], alone)
    assert torch.equal(draw(model), draw(load(tuned[name])))
    assert model.weights == "ema 0.9"
    assert model.images_seen == load(tuned[name]).images_seen


def test_adapters_are_refused_on_another_base(bases: dict[str, Path], tuned: dict[str, Path], tmp_path: Path) -> None:
    alone = tuned["unet"].with_suffix(".adapters.pt")
    other = torch.load(bases["unet"], weights_only=True)
    other["state_dict"]["network.head.bias"] += 1e-6
    torch.save(other, tmp_path / "other.ckpt")
    for base in (tmp_path / "other.ckpt", bases["dit"]):
        with pytest.raises(ValueError, match=r"belong to the weights .* of .*unet.ckpt"):
            export_checkpoint(base, tmp_path / "out.ckpt", adapters=alone)
    assert not (tmp_path / "out.ckpt").exists()
    with pytest.raises(ValueError, match="holds adapters alone: put them on their base"):
        load(alone)
    with pytest.raises(ValueError, match="is a whole checkpoint; give the file beside it"):
        load_adapters(bases["unet"], tuned["unet"])


def test_what_export_cannot_do_is_said(bases: dict[str, Path], tuned: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have no adapters; they are plain already"):
        export_checkpoint(bases["unet"], tmp_path / "out.ckpt", merge_adapters=True)
    with pytest.raises(ValueError, match="say what to do"):
        export_checkpoint(tuned["unet"], tmp_path / "out.ckpt")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        export_checkpoint(tuned["unet"], tuned["unet"], merge_adapters=True)
    with pytest.raises(ValueError, match=r"it must be a file with the ending \.ckpt"):
        export_checkpoint(tuned["unet"], tmp_path / "out", merge_adapters=True)


def test_a_resumed_training_of_adapters_equals_an_unbroken_one(
    bases: dict[str, Path], make_trainer: Callable[..., L.Trainer]
) -> None:
    made: list[DDPM] = []

    def make() -> DDPM:
        torch.manual_seed(len(made))
        made.append(unet(ADAPTERS))
        if len(made) == 1:  # what is resumed has its weights from the checkpoint
            take_weights(made[0], bases["unet"])
        return made[-1]

    unbroken = assert_resumes(make, make_trainer, stops=(5,), precision="bf16-mixed")
    assert unbroken["lit_generative"]["state"]["origin"]["checkpoint"] == str(bases["unet"])


def test_networks_that_were_never_trained_are_not_adapted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"network.adapters=.*no trained weights to adapt; give --from CKPT"):
        fit(unet(ADAPTERS), tmp_path)


def test_what_is_new_must_be_trained(bases: dict[str, Path]) -> None:
    def other(also: list[str]) -> DDPM:
        adapters = LowRankAdapters(2, also=also)
        return DDPM(UNet((3, 28, 28), (8, 8), 1, (1,), groups=4, patch=4, adapters=adapters), (3, 28, 28))

    with pytest.raises(ValueError, match=r"leave head.bias, head.weight, stem.weight as they are"):
        take_weights(other([]), bases["unet"])
    taken = take_weights(other(["head*", "stem*"]), bases["unet"])
    assert set(taken.new) == {f"network.{name}" for name in ("head.bias", "head.weight", "stem.weight")}


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (LowRankAdapters(2, parts=["*atention*"]), r"parts='\*atention\*' names nothing in UNet, which has "),
        (LowRankAdapters(2, also=["clases*"]), r"also='clases\*' names nothing in UNet"),
        (LowRankAdapters(64), "rank=64: of .* layers, no matrix has more rows and columns than that"),
    ],
)
def test_patterns_of_nothing_and_ranks_of_everything_are_refused(adapters: LowRankAdapters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unet(adapters)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 2.5}, {"alpha": 0}, {"parts": "*"}, {"also": [1]}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        LowRankAdapters(**options)


def test_only_what_is_named_is_adapted() -> None:
    network: nn.Module = unet(LowRankAdapters(2, parts=["*attention*"])).network
    adapted = {name.partition(".parametrizations")[0] for name, _ in network.named_parameters() if is_added(name)}
    assert adapted
    assert all("attention" in name for name in adapted)
