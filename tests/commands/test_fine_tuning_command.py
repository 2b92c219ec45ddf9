"""``fit --from CKPT`` and ``export``: from a checkpoint to models of other images, on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from running import TINY, Outcome, run

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.pictures import save_png

ADAPTERS = ["--model.network.adapters", "LowRankAdapters", "--model.network.adapters.rank", "2"]
SHORT = [*TINY, "--evaluate.every_n_epochs", "100", "--trainer.max_epochs", "1", "--data.subset", "60"]
Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of three classes."""
    folder = tmp_path_factory.mktemp("three")
    batch = next(iter(ImageDataModule(subset=400, batch_size=400).loader("train")))
    for i, (image, label) in enumerate(zip(batch["image"], batch["label"].tolist(), strict=True)):
        if label < 3:
            save_png(image, folder / f"class_{label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a diffusion model of ten classes."""
    root = tmp_path_factory.mktemp("base")
    small = ["--model.network.widths", "[8, 8]", "--model.network.groups", "4", "--model.network.head_dim", "8"]
    options = [*SHORT, *small, "--model.sampler.steps", "2", "--model.network.patch", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LIT_GENERATIVE_CACHE", str(root / "cache"))
        outcome = run("fit", "--config", "diffusion/fashion-conditional", *options)
    assert outcome.status == 0, outcome.err
    return root / outcome.folder / "checkpoints" / "last.ckpt"


def load(path: Path) -> Any:
    return GenerativeModule.load_from_checkpoint(path)


def test_a_checkpoint_describes_the_model_that_follows_the_classes_of_other_data(
    conditional: Path, three: Path, lit_generative: Run
) -> None:
    options = ["--data.dataset", str(three), "--model.optimizer.lr", "5e-4"]
    outcome = lit_generative("fit", "--from", str(conditional), *SHORT, *options)
    assert outcome.status == 0, outcome.err
    assert "embedding.weight: (3, " in outcome.out
    tuned, before = load(outcome.folder / "checkpoints" / "last.ckpt"), load(conditional)
    assert (tuned.num_classes, before.num_classes) == (3, 10)
    assert tuned.class_names == ["class_0", "class_1", "class_2"]
    assert tuned.images_seen < before.images_seen
    assert tuned.origin["checkpoint"] == str(conditional)
    assert tuned.make_optimizer.keywords["lr"] == 5e-4
    config = yaml.safe_load((outcome.folder / "config.yaml").read_text())
    assert config["from"] == str(conditional)
    assert config["data"]["init_args"]["image_size"] == 28
    assert outcome.folder.parent.name.endswith("-tuned")


def test_adapters_from_the_base_to_a_plain_checkpoint(base: Path, three: Path, lit_generative: Run) -> None:
    options = [*SHORT, "--data.dataset", str(three), *ADAPTERS]
    refused = lit_generative("fit", "--from", str(base), *options)
    assert refused.status == 1
    assert "network.adapters leave classes.embedding.weight as they are" in refused.err
    assert not Path("runs").exists()
    outcome = lit_generative("fit", "--from", str(base), *options, "--model.network.adapters.also", '["classes*"]')
    assert outcome.status == 0, outcome.err
    assert "parameters of adapters beside" in outcome.out
    checkpoint = outcome.folder / "checkpoints" / "last.ckpt"
    alone = checkpoint.with_suffix(".adapters.pt")
    for name, given in {
        "merged": [str(checkpoint), "--merge_adapters"],
        "put on": [str(base), "--adapters", str(alone), "--merge_adapters"],
    }.items():
        exported = lit_generative("export", *given, "--output", f"{name}.ckpt")
        assert exported.status == 0, exported.err
    merged, put_on, adapted = load(Path("merged.ckpt")), load(Path("put on.ckpt")), load(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), put_on.parameters(), strict=True))
    drawn = [
        model.sample(4, torch.arange(4) % 3, generator=torch.Generator().manual_seed(1)) for model in (merged, adapted)
    ]
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-5)
    for model in (checkpoint, Path("merged.ckpt")):
        outcome = lit_generative("test", str(model), "--evaluation.num_samples", "30", "--likelihood.num_images", "4")
        assert outcome.status == 0, outcome.err
    assert lit_generative("sample", "merged.ckpt", "--num_samples", "3", "--output", "drawn").status == 0


def test_a_tuned_run_goes_on_by_its_own_configuration(conditional: Path, three: Path, lit_generative: Run) -> None:
    first = lit_generative("fit", "--from", str(conditional), *SHORT, "--data.dataset", str(three))
    last = first.folder / "checkpoints" / "last.ckpt"
    again = ["--config", f"{first.folder}/config.yaml", "--ckpt_path", str(last), "--trainer.max_epochs", "2"]
    outcome = lit_generative("fit", *again)
    assert outcome.status == 0, outcome.err
    assert outcome.folder == first.folder
    assert "weights from" not in outcome.out
    assert load(last).origin["checkpoint"] == str(conditional)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "{base}", "--ckpt_path", "{base}"], "begins a new run, --ckpt_path"),
        (["--from", "nowhere.ckpt"], "checkpoint nowhere.ckpt: there is no such file"),
        (["--from", "{run}"], "is a folder; did you mean"),
        (["--config", "gan/fashion", "--from", "{base}"], "none of its weights, those of a VAE, fits this GAN"),
        (["--config", "diffusion/fashion", *ADAPTERS], "there are no trained weights to adapt; give --from CKPT"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    conditional: Path, lit_generative: Run, options: list[str], message: str
) -> None:
    places = {"base": str(conditional), "run": str(conditional.parents[1])}
    outcome = lit_generative("fit", *(option.format(**places) for option in options))
    assert outcome.status == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("runs").exists()
