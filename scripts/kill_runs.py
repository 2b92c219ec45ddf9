"""Kill trainings of every family at random moments, resume them, and see that they end as an undisturbed one does.

    python scripts/kill_runs.py --kills 20

A run is killed (SIGKILL) after a random time, or in the middle of writing a checkpoint, or between the last byte and
the renaming. Each time its last checkpoint has to be whole, and it is resumed as the command line says. In the end its
weights, optimizers, schedules, records and metrics are compared with those of a run that nobody disturbed, bit by bit.
The temporary folder is on another file system if there is one (``/dev/shm``). With the right to mount (root), a disk is
filled up as well. Linux only.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lit_generative.callbacks.last import LastCheckpoint
from lit_generative.checkpoints import read_checkpoint
from lit_generative.cli import main

RECIPES = ("vae/fashion", "gan/fashion", "diffusion/fashion")
OPTIONS = [
    *(
        "--data.subset",
        "240",
        "--data.batch_size",
        "8",
        "--trainer.max_epochs",
        "3",
        "--trainer.limit_val_batches",
        "2",
    ),
    *("--trainer.check_val_every_n_epoch", "1", "--evaluate.every_n_epochs", "1", "--trainer.log_every_n_steps", "5"),
    *("--evaluation.num_samples", "20", "--evaluation.num_real", "50", "--trainer.enable_progress_bar", "false"),
    *("--grid.num_samples", "4", "--trainer.accelerator", "cpu"),
]
MOMENTS = ("time", "time", "write", "rename")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "lit_generative", "global_step", "epoch")
REPEATED = ("train/penalty", "health/")  # a GAN logs the latest ones again, which a resumed run has yet to measure
DISK = 256  # MB of the small one
OF_TIME = ("images_per_second", "training_minutes", "device_minutes")  # no two runs take the same time


def run(recipe: str, root: Path, moment: str = "", share: float = 0.0) -> int:
    """Train in a process of its own, from the last checkpoint on if there is one; return how it ended."""
    folder = newest(root, recipe)
    last = None if folder is None else folder / "checkpoints" / "last.ckpt"
    config = recipe if last is None or not last.is_file() else f"{folder}/config.yaml"
    resumed = [] if config == recipe else ["--ckpt_path", str(last)]
    arguments = ["fit", "--config", config, *OPTIONS, "--trainer.default_root_dir", str(root), *resumed]
    child = os.fork()
    if not child:
        work(arguments, root, moment, share)
    if moment == "time":
        time.sleep(share)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def work(arguments: list[str], root: Path, moment: str, share: float) -> None:
    """Be the child: print into a file, save often, and perhaps die while doing so."""
    with open(root / "output.txt", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)
    LastCheckpoint.__init__.__defaults__ = (0.01,)  # minutes
    if moment in ("write", "rename"):
        torch.save = dying(torch.save, share, moment)
    status = main(arguments)
    sys.stdout.flush()
    os._exit(status)


def dying(save: Callable[..., None], share: float, moment: str) -> Callable[..., None]:
    """Return a ``torch.save`` that dies in one of its first calls: half-way through, or when the file is whole."""
    calls = Counter[str]()

    def dying_save(obj: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        calls["save"] += 1
        if not isinstance(path, Path) or calls["save"] <= share * 4:
            save(obj, path, *args, **kwargs)
            return
        whole = io.BytesIO()
        save(obj, whole, *args, **kwargs)
        content = whole.getvalue()
        path.write_bytes(content if moment == "rename" else content[: int(share * len(content))])
        os.kill(os.getpid(), signal.SIGKILL)

    return dying_save


def newest(root: Path, recipe: str) -> Path | None:
    """Return the folder of the latest run of a recipe."""
    return max((root / recipe).glob("version_*"), key=lambda path: int(path.name.split("_")[1]), default=None)


def kill_and_resume(recipe: str, root: Path, kills: int, longest: float, rng: random.Random) -> Counter[str]:
    """Kill runs until there were enough kills, each of them to its end; count moments, broken files and ends."""
    counts = Counter[str]()
    attempt = 0
    undisturbed = ends(root / "undisturbed", recipe)
    while counts["kills"] < kills:
        folder = root / f"killed_{attempt}"
        folder.mkdir(parents=True)
        for _ in range(rng.randint(3, 6)):
            moment = rng.choice(MOMENTS)
            share = rng.random() * (longest if moment == "time" else 1)
            if run(recipe, folder, moment, share) != -signal.SIGKILL:
                break  # it had come to its end before
            counts["kills"] += 1
            counts[moment] += 1
            counts["broken checkpoints"] += is_broken(folder, recipe)
        assert run(recipe, folder) == 0, (folder / "output.txt").read_text()[-2000:]
        counts["runs"] += 1
        found = differences(ends(folder, recipe), undisturbed)
        counts["identical ends"] += not found
        print(f"{recipe}: another end in {', '.join(found[:5])}\n" if found else "", end="", flush=True)
        shutil.rmtree(folder)
        attempt += 1
    return counts


def is_broken(root: Path, recipe: str) -> bool:
    """Whether a checkpoint of the latest run cannot be read."""
    folder = newest(root, recipe)
    for path in [] if folder is None else folder.glob("checkpoints/*.ckpt"):
        try:
            read_checkpoint(path)
        except ValueError:
            return True
    return False


def ends(root: Path, recipe: str) -> dict[str, Any]:
    """Return what a run has ended with: its last checkpoint, its evaluations and its metrics."""
    folder = newest(root, recipe)
    assert folder is not None
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    found = {part: checkpoint[part] for part in COMPARED}
    records = json.loads((folder / "evaluation.json").read_text())
    found["records"] = once([{k: v for k, v in record.items() if k not in OF_TIME} for record in records])
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: v for name, v in row.items() if not name.startswith(REPEATED)} for row in csv.DictReader(file)]
    found["metrics"] = {}
    for row in rows:  # in which order a callback and the trainer write what belongs to one moment does not matter
        found["metrics"].setdefault(row["images_seen"], {}).update({key: v for key, v in row.items() if v})
    return found


def once(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what stands there twice: a run that was killed behind its last evaluation does that one again.

    It then has no losses beside it, since there was no validation.
    """
    kept = [{key: value for key, value in record.items() if key != "losses"} for record in records]
    return [record for i, record in enumerate(kept) if record not in kept[:i]]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return the places at which nested plain data and tensors differ, by a single bit too."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for key in a for place in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [place for i, (x, y) in enumerate(zip(a, b, strict=True)) for place in differences(x, y, f"{where}.{i}")]
    return [] if a == b or (a != a and b != b) else [f"{where}: {str(a)[:80]} and {str(b)[:80]}"]


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a small file system.

    Raises:
        PermissionError: If that is not allowed here.
    """
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        raise PermissionError("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(recipe: str, root: Path) -> str:
    """Let a run meet a full disk, make room, and resume it; say how it went."""
    needed = sum(path.stat().st_size for path in (root / "undisturbed").rglob("*") if path.is_file())
    with small_disk(DISK) as disk:
        filler = disk / "filler"
        for share in (0.4, 0.55, 0.7, 0.85):  # room for the first checkpoint and not for all that follows
            shutil.rmtree(disk / recipe.split("/")[0], ignore_errors=True)
            filler.write_bytes(bytes((DISK << 20) - int(share * needed)))
            status = run(recipe, disk)
            folder = newest(disk, recipe)
            if status and folder is not None and (folder / "checkpoints" / "last.ckpt").is_file():
                break
        lines = (disk / "output.txt").read_text().splitlines()
        sentence = next((line for line in reversed(lines) if line.startswith("lit-generative: error:")), "no sentence")
        file = "broken" if is_broken(disk, recipe) else "whole"
        filler.unlink()
        resumed = run(recipe, disk)
        found = differences(ends(disk, recipe), ends(root / "undisturbed", recipe))[:5]
    end = "identical" if not found else f"another in {found}"
    return f"status {status}, {sentence!r}, checkpoint {file}; resumed with status {resumed}, end {end}"


def start() -> None:
    """Kill, resume, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="Kills of each family.")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if Path("/dev/shm").is_dir():
        tempfile.tempdir = os.environ["TMPDIR"] = "/dev/shm"
    rng = random.Random(options.seed)
    print("| recipe | kills | after a time | in writing | before renaming | broken files | runs | identical ends |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for recipe in options.recipes:
        root = Path(tempfile.mkdtemp(dir="."))
        (root / "undisturbed").mkdir()
        begin = time.monotonic()
        assert run(recipe, root / "undisturbed") == 0, (root / "undisturbed" / "output.txt").read_text()[-2000:]
        counts = kill_and_resume(recipe, root, options.kills, 1.2 * (time.monotonic() - begin), rng)
        names = ("kills", "time", "write", "rename", "broken checkpoints", "runs", "identical ends")
        print(f"| {recipe} | {' | '.join(str(counts[name]) for name in names)} |", flush=True)
        try:
            print(f"{recipe} on a full disk: {fill_disk(recipe, root)}", flush=True)
        except PermissionError as error:
            print(f"not tried: {error}")
        shutil.rmtree(root)


if __name__ == "__main__":
    start()
