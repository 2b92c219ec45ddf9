"""Whatever is wrong is said in one line, with the nearest names that would do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY

FIT = ("fit", "--config", "vae/mlp")
CASES = {
    "fitt": "unknown command 'fitt'; did you mean fit?",
    "fit": "no model is given; add for instance --config vae/fashion",
    "fit --config vae/fasion": "--config vae/fasion: neither a file nor a recipe; the nearest are vae/fashion",
    "fit --config none.yaml": "--config none.yaml: neither a file nor a recipe",
    "FIT --trainer.max_epoch 3": "did you mean --trainer.max_epochs",
    "FIT --traner.max_epochs 3": "did you mean --trainer.max_epochs",
    "FIT --model.latentdim 3": "--model.latentdim: lit_generative.VAE has no such option; did you mean latent_dim?",
    "FIT --model.encoder.hiden 3": "lit_generative.nn.MLPEncoder has no such option; did you mean hidden?",
    "FIT --model.optimizer.lrr 1": "--model.optimizer.lrr: torch.optim.Adam has no such option; did you mean lr?",
    "FIT --data.batchsize 3": "lit_generative.ImageDataModule has no such option; did you mean batch_size",
    "FIT --trainer.callbacks+=EMA --trainer.callbacks.dcay 1": "callbacks.EMA has no such option; did you mean decay",
    "FIT --model VEA": "--model VEA: there is no such class; did you mean VAE",
    "FIT --model GAN --model.loss Hing": "--model.loss Hing: there is no such class; did you mean HingeLoss?",
    "FIT --model DDPM --model.schedule Cosin": "there is no such class; did you mean CosineSchedule?",
    "FIT --model DDPM --model.prediction Velocty": "there is no such class; did you mean VelocityPrediction?",
    "FIT --model.lr_scheduler OneCylce": "there is no such class; did you mean OneCycle?",
    "FIT --model.optimizer.lr nan": "--model.optimizer.lr nan: expected a number, and nan is none",
    "FIT --model.optimizer.lr -1": "optimizer.lr=-1.0: it must be at least 0",
    "FIT --model.optimizer.betas [2,0.9]": "optimizer.betas[0]=2.0: it must be in [0, 1)",
    "FIT --trainer.gradient_clip_val -1": "trainer.gradient_clip_val=-1: it must be at least 0",
    "FIT --trainer.max_epochs 0": "trainer.max_epochs=0: it must be at least 1",
    "FIT --trainer.max_steps 0": "trainer.max_steps=0: it must be at least 1",
    "FIT --trainer.limit_train_batches 0": "trainer.limit_train_batches=0",
    "FIT --model my_models.MyVAE": "--model my_models.MyVAE: there is no such class",
    "FIT --model.encoder MLPEncodr": "--model.encoder MLPEncodr: there is no such class; did you mean MLPEncoder",
    "FIT --model.likelihood Gausian": "--model.likelihood Gausian: there is no such class; did you mean Gaussian",
    "FIT --model.likelihood MLPEncoder": "--model.likelihood MLPEncoder: that is a class of another kind",
    "FIT --model.optimizer Adm": "--model.optimizer Adm: there is no such class; did you mean Adam",
    "FIT --trainer.callbacks EMMA": "--trainer.callbacks EMMA: there is no such class; did you mean EMA",
    "FIT --data ImageDatModule": "--data ImageDatModule: there is no such class; did you mean ImageDataModule",
    "FIT --model.latent_dim abc": "--model.latent_dim abc: expected int",
    "FIT --trainer.max_epochs many": "--trainer.max_epochs many: expected int",
    "FIT --data.batch_size x": "--data.batch_size x: expected int",
    "FIT --data.channels 2": "--data.channels 2: expected one of 'auto', 1, 3",
    "FIT --trainer.precision fp7": "'bf16-mixed'",
    "FIT --trainer.strategy dpp": "'dpp'",
    "FIT --trainer.limit_train_batches 2.5": "2.5",
    "FIT --data.batch_size 0": "batch_size=0: it must be at least 1",
    "FIT --model.likelihood.scale -1": "scale=-1.0: it must be positive",
    "FIT --data.dataset fashon-mnist": "did you mean 'fashion-mnist'?",
    "FIT --data.dataset ./none": "./none",
    "FIT --model.num_classes 7": "num_classes=7, but the data have 10 classes",
    "FIT --evaluation.extractor fashon": "extractor is 'fashon'; it must be fashion, random",
    "FIT --evaluation.num_samples 2": "num_samples=2: it must be at least 6",
    "FIT --ckpt_path none.ckpt": "checkpoint none.ckpt: there is no such file",
    "FIT --trainer.callbacks+=EMA --trainer.callbacks.part generator": "part='generator': the model has no such",
    "test": "no model is given; add for instance a checkpoint: lit-generative test CKPT",
    "test --ckpt_path none.ckpt": "checkpoint none.ckpt: there is no such file",
    "test --ckpt_path empty.ckpt": "checkpoint empty.ckpt is refused: it is damaged",
    "test --ckpt_path text.ckpt": "checkpoint text.ckpt is refused: it is damaged",
    "test --ckpt_path CKPT --data.dataset none": "dataset='none' is neither an embedded set nor a path",
    "sample": "missing CKPT, --output",
    "sample --ckpt_path empty.ckpt --output out": "checkpoint empty.ckpt is refused",
    "sample --ckpt_path CKPT --output out --num_sample 3": "unknown option --num_sample 3; did you mean --num_samples?",
    "sample --ckpt_path CKPT --output out --num_samples x": "--num_samples x: expected int",
    "sample --ckpt_path CKPT --output out --num_samples 0": "num_samples=0",
    "sample --ckpt_path CKPT --output out --labels [1]": "labels=[1]: the model is unconditional",
    "sample --ckpt_path CKPT --output out --device gpu": "device='gpu' is not there: use auto, cpu",
    "sample --ckpt_path CKPT --output text.ckpt": "output=text.ckpt is a file; give a folder",
    "recipes --all": "unknown option --all",
    "extractor": "missing --output",
    "fit --import": "--import: name a module",
}


@pytest.mark.parametrize(("command", "message"), CASES.items())
def test_an_error_is_one_line(
    command: str, message: str, lit_generative: Callable, fitted: tuple, tmp_path: Path
) -> None:
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "text.ckpt").write_text("hello")
    shutil.copy(fitted[1] / "checkpoints" / "last.ckpt", tmp_path / "CKPT")
    arguments = command.split()
    if arguments[0] == "FIT":
        arguments = [*FIT, *TINY, *arguments[1:]]
    outcome = lit_generative(*arguments)
    assert outcome.status != 0
    assert outcome.err.startswith("lit-generative: error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_error_in_a_users_code_keeps_its_traceback(lit_generative: Callable, tmp_path: Path) -> None:
    (tmp_path / "broken_models.py").write_text(
        "from lit_generative import VAE\n"
        "class BrokenVAE(VAE):\n"
        "    def objective(self, nll, kl):\n"
        "        return {}['no such key']\n"
    )
    outcome = lit_generative(*FIT, *TINY, "--model", "broken_models.BrokenVAE")
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "KeyError: 'no such key'" in outcome.err
