"""What the tests of the command line share: a way to run it, and small runs whose folders many tests look at."""

from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Outcome, run


@pytest.fixture
def lit_generative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


def fit(folder: Path, *arguments: str) -> Outcome:
    """Run ``fit`` in ``folder``, with its cache in there too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LIT_GENERATIVE_CACHE", str(folder / "cache"))
        outcome = run("fit", "--config", "vae/mlp", *TINY, *arguments)
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A run of a VAE, and the folder it made."""
    root = tmp_path_factory.mktemp("fitted")
    outcome = fit(root)
    return outcome, root / outcome.folder


@pytest.fixture(scope="session")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a VAE of ten classes."""
    root = tmp_path_factory.mktemp("conditional")
    return root / fit(root, "--model.num_classes", "10").folder / "checkpoints" / "last.ckpt"
