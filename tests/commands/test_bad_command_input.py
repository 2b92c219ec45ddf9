"""Bad command lines of every command: one sentence that names argument, value and remedy, and nothing is touched."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY

# what is given, and what the sentence has to say; CKPT is a sound checkpoint of ten classes
CASES = {
    # no command
    "": "unknown command ''; there are fit, validate, test",
    "fti": "unknown command 'fti'; did you mean fit?",
    "Sampel CKPT": "unknown command 'Sampel'; did you mean sample?",
    "--config vae/mlp": "--config: a command comes before its options; there are fit",
    # the checkpoint, by its position or its option
    "test CKPT CKPT": "CKPT belongs to no option; test takes one checkpoint, here CKPT",
    "test CKPT --ckpt_path CKPT": "the checkpoint is given twice, as CKPT and by --ckpt_path; give it once",
    "validate --ckpt_path=CKPT CKPT": "the checkpoint is given twice, as CKPT and by --ckpt_path=CKPT; give it once",
    "sample CKPT --ckpt_path CKPT --output out": "the checkpoint is given twice",
    "latent CKPT --ckpt_path CKPT --output out": "the checkpoint is given twice",
    "predict folder": "checkpoint folder is a folder; give a file, such as a run's checkpoints/last.ckpt",
    "test run": "checkpoint run is a folder; its last checkpoint is run/checkpoints/last.ckpt",
    "test --ckpt_path run": "its last checkpoint is run/checkpoints/last.ckpt",
    "test none.ckpt": "checkpoint none.ckpt: there is no such file",
    "latent text.txt --output out": "checkpoint text.txt is refused",
    "sample": "missing CKPT, --output",
    "latent CKPT": "missing --output",
    "predict": "no model is given; add for instance a checkpoint: lit-generative predict CKPT",
    "fit CKPT --config vae/mlp": "CKPT belongs to no option; did you mean --ckpt_path CKPT?",
    "fit vae/mlp": "vae/mlp belongs to no option; did you mean --config vae/mlp?",
    "compare CKPT --ckpt_path CKPT": "--ckpt_path: compare takes its checkpoints by position",
    # one spelling for one thing
    "test CKPT --seed": "--seed: its value is missing",
    "test CKPT --seed --verbose true": "--seed: its value is missing",
    "test CKPT --seed -1": "--seed_everything -1: a seed is a whole number from 0 to 4294967295",
    "fit --config vae/mlp --seed 5000000000": "--seed_everything 5000000000: a seed is a whole number",
    "sample CKPT --output out --seed -1": "--seed -1: a seed is a whole number",
    "compare CKPT --seed -1": "--evaluation.seed -1: a seed is a whole number",
    "extractor --output out.safetensors --seed -1": "--seed -1: a seed is a whole number",
    "test CKPT --device gpu": "--device gpu: use auto, cpu, cuda or cuda:N; for several, --trainer.devices",
    "fit --config vae/mlp --device cuda:x": "--device cuda:x: use auto, cpu, cuda or cuda:N",
    "sample CKPT --output out --device cpu:x": "device='cpu:x' is not there: use auto, cpu, cuda or cuda:N",
    "latent CKPT --output out --device gpu": "device='gpu' is not there: use auto",
    "compare CKPT --device gpu": "device='gpu' is not there: use auto",
    "extractor --output out.safetensors --device gpu": "device='gpu' is not there: use auto",
    "test CKPT --num_samples many": "--evaluation.num_samples many: expected int",
    "test CKPT --num_samples 1": "num_samples=1: it must be at least",
    "sample CKPT --output out --evaluation.num_samples x": "--num_samples x: expected int",
    "compare CKPT --evaluation.num_samples x": "--num_samples x: expected int",
    "test CKPT --likelihood_images one": "--likelihood.num_images one: expected int",
    "test CKPT --likelihood.num_images 1": "num_images=1: it must be at least 2; the standard error needs two",
    "compare CKPT --likelihood.num_images 1": "likelihood_images=1: it must be at least 2; 0 is none",
    "compare CKPT --likelihood.evaluations 0": "likelihood_evaluations=0: it must be at least 1",
    "predict CKPT --batch_size -1": "batch_size=-1: it must be at least 1",
    "extractor --output out.safetensors --batch_size x": "--data.batch_size x: expected int",
    "predict CKPT --output text.txt": "trainer.default_root_dir=text.txt",
    # classes
    "sample CKPT --output out --labels 10": "labels=10: there is no such class, give indices or names of: 0 t-shirt, 1",
    "sample CKPT --output out --labels -1": "labels=-1: there is no such class",
    "sample CKPT --output out --labels snaeker": "labels=snaeker: there is no such class",
    "sample CKPT --output out --labels '[sneaker, bagg]'": "labels=bagg: there is no such class",
    "sample CKPT --output out --labels '[3, 12]'": "labels=12: there is no such class",
    "sample CKPT --output out --labels 2.5": "labels=2.5: there is no such class",
    "sample CKPT --output out --labels '[]'": "labels=[]: name at least one class",
    "sample CKPT --output out --labels ''": "labels='': name at least one class",
    "sample CKPT --output out --labels true": "labels=true: there is no such class",
    "sample CKPT --output out --labels 3 5": "5 belongs to no option; sample takes one checkpoint, here CKPT",
    "sample PLAIN --output out --labels sneaker": "labels=sneaker: the model is unconditional, leave them out",
    "latent CKPT --output out --labels boots": "labels=boots: there is no such class",
    # where it goes
    "sample CKPT --output": "--output: its value is missing",
    "sample CKPT --output text.txt": "output=text.txt is a file; give a folder",
    "sample CKPT --output out --grid text.txt": "text.txt is there already; give another output, nothing",
    "latent CKPT --output full": "output=full is there already; give another one, nothing is overwritten",
    "compare CKPT --output text.txt": "output=text.txt is no comparison's folder; give a new one",
    "extractor --output have.safetensors": "output=have.safetensors is there already; give another one",
    "extractor --output out.txt": "output is 'out.txt'; the name must end in .safetensors",
    "extractor folder --output out.safetensors": "folder belongs to no option; did you mean --data.dataset folder",
    # options that are not there
    "sample CKPT --output out --grids g.png": "unknown option --grids g.png; did you mean --grid?",
    "sample CKPT --output out --zzz 5": "unknown option --zzz 5; --help lists the options",
    "latent CKPT --output out --num_samples 3": "unknown option --num_samples 3; did you mean --num_images?",
    "compare CKPT --curve x": "--curve x: expected int",
    "compare CKPT --names ../x": "names has '../x'",
    "compare --recipes none": "--recipes none: neither a file nor a recipe; the nearest are",
    "compare --recipes vae/mlp --minutes 0": "minutes=0.0: it must be positive",
    "recipes vae/fasion": "recipes vae/fasion: neither a file nor a recipe; the nearest are vae/fashion",
    "recipes vae gan": "unknown option gan; recipes takes a family, a recipe or nothing",
    "recipes --all": "unknown option --all; recipes takes a family",
    "sample CKPT --output out --import no_such": "--import no_such: there is no module no_such; it is looked for",
    # configurations
    "fit --config bad.yaml": "bad.yaml is not valid YAML at line 2",
    "fit --config list.yaml": "--config: a file of options has lines of the form `name: value`",
    "fit --config vae/mlp --config typo.yaml": "--config: fit has no option trainr.max_epochs; did you mean trainer.",
    "FIT --config": "-c/--config: its value is missing",
    # loggers
    "FIT --trainer.logger WandbLoger": "--trainer.logger WandbLoger: there is no such class; did you mean WandbLogger",
    "FIT --trainer.logger WandbLogger --trainer.logger.ofline true": "has no such option; did you mean offline?",
    "FIT --trainer.logger WandbLogger --trainer.logger.offline x": "--trainer.logger.offline x: expected bool",
    "FIT --trainer.logger.offline true": "--trainer.logger: its class is missing, which comes before its options",
    "FIT --trainer.max_time soon": "'soon'",
    "FIT --trainer.devices 0": "devices='0'",
}


@pytest.fixture
def given(fitted: tuple, conditional: Path, tmp_path: Path) -> Path:
    """Make a folder with what the command lines name."""
    shutil.copy(conditional, tmp_path / "CKPT")
    plain = fitted[1] / "checkpoints" / "last.ckpt"
    shutil.copy(plain, tmp_path / "PLAIN")
    for folder in ("folder", "full", "run/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(plain, tmp_path / "run" / "checkpoints" / "last.ckpt")
    for name, text in {
        "text.txt": "hello",
        "full/kept.png": "a picture",
        "have.safetensors": "features",
        "bad.yaml": "trainer: [1, 2\n",
        "list.yaml": "- 1\n- 2\n",
        "typo.yaml": "trainr:\n  max_epochs: 1\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts}


@pytest.mark.parametrize(("command", "message"), CASES.items(), ids=CASES)
def test_a_bad_command_line_is_one_sentence(
    command: str, message: str, lit_generative: Callable, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command) or [""]
    if words[0] == "FIT":
        words = ["fit", "--config", "vae/mlp", *TINY, *words[1:]]
    before = contents(given)
    outcome = lit_generative(*words)
    assert outcome.status in (1, 2)
    assert "Traceback" not in outcome.err + outcome.out
    lines = [line for line in re.split(r"[\r\n]+", outcome.err) if line and "decoding" not in line]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("lit-generative: error: ")
    assert message in lines[0]
    assert contents(given) == before


def test_there_are_enough_of_them_for_every_command() -> None:
    commands = [line.split()[0] for line in CASES if line]
    assert len(CASES) >= 60
    assert {"FIT", "fit", "validate", "test", "predict", "sample", "compare", "latent", "extractor", "recipes"} <= {
        *commands
    }
