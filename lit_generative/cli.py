"""The command line: ``lit-generative COMMAND``."""

import difflib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

COMMANDS = {
    "fit": "train a model: lit-generative fit --config vae/fashion",
    "validate": "measure the losses on the validation split: lit-generative validate CKPT",
    "test": "measure the losses and the samples' quality on the test split: lit-generative test CKPT",
    "predict": "draw one sample per test image into the run's folder: lit-generative predict CKPT",
    "sample": "draw images into a folder: lit-generative sample CKPT --num_samples 64 --output DIR",
    "edit": "fill, remake or enlarge a picture: lit-generative edit CKPT IMAGE --mask M.png --output FILE",
    "compare": "measure models by one protocol and write a report: lit-generative compare CKPT CKPT --output DIR",
    "evaluate": "measure any samples against real images: lit-generative evaluate SAMPLES --real REAL",
    "latent": "draw the latent space of a model: lit-generative latent CKPT --output DIR",
    "export": "write a model in another form: lit-generative export CKPT --merge_adapters --output FILE.ckpt",
    "extractor": "train a feature extractor for evaluation on labelled data of one's own",
    "recipes": "list the recipes that ship, with what each costs",
}
MODULES = dict.fromkeys(("fit", "validate", "test", "predict"), "trainer")  # else: tools
MODULES |= {"compare": "compare", "evaluate": "evaluate", "recipes": "recipes"}

_HELP = "\n".join(
    [
        "usage: lit-generative COMMAND [OPTIONS]\n",
        *(f"  {command:10}{about}" for command, about in COMMANDS.items()),
        "\n`lit-generative COMMAND --help` lists the options of a command; --version says which version this is.",
        "Each command but recipes takes --import MODULE, for checkpoints of classes of one's own.",
        "--seed, --device, --output, --batch_size and --num_samples mean the same in all commands that take them.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if it failed, 2 for wrong usage, 128 + n if signal n stopped it."""
    command, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help", "help", "--version"):
        print(f"lit-generative {_version()}" if command == "--version" else _HELP)
        return 0
    if command not in COMMANDS:
        return _fail(_no_command(command), 2)
    sys.path.insert(0, os.getcwd())  # so that --model my_file.MyModel is found, as with python -m
    _quiet()
    try:
        _run(command, arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        return _explain(error)
    return 0


def _version() -> str:
    return import_module("lit_generative").__version__


def _no_command(given: str) -> str:
    """Return what is said of a word that is no command."""
    if given.startswith("-"):
        return f"{given}: a command comes before its options; there are {', '.join(COMMANDS)}"
    nearest = difflib.get_close_matches(given.lower(), COMMANDS, n=1)
    return f"unknown command {given!r}; " + (
        f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(COMMANDS)}"
    )


def _run(command: str, arguments: list[str]) -> None:
    """Import what the command needs, which takes seconds but for ``recipes``, and call it."""
    if command != "recipes":
        from lit_generative.training.parser import import_modules

        import_modules(arguments)
    module = import_module(f"lit_generative.commands.{MODULES.get(command, 'tools')}")
    getattr(module, command)(arguments)


def _explain(error: Exception) -> int:
    """Print one line for an error that was raised on purpose, the whole traceback for any other.

    On purpose is what this package or Lightning raises itself; a library may have wrapped it on the way. What the
    operating system refuses is said in one line, too. An error in a user's own code keeps its traceback.
    ``LIT_GENERATIVE_DEBUG=1`` shows all of them.
    """
    chain: list[BaseException] = [error]
    while (cause := _cause(chain[-1])) is not None:
        chain.append(cause)
    for candidate in [] if "LIT_GENERATIVE_DEBUG" in os.environ else reversed(chain):
        frames = list(traceback.walk_tb(candidate.__traceback__))
        raised_by = frames[-1][0].f_globals.get("__name__", "").partition(".")[0] if frames else ""
        kinds = {cls.__name__ for cls in type(candidate).mro()}
        if raised_by in ("lit_generative", "lightning") and kinds & _ON_PURPOSE:
            return _fail(str(candidate), 1)
        if isinstance(candidate, OSError) and candidate.strerror:  # a full disk, a folder that may not be written, ...
            file = "" if candidate.filename is None else f"{candidate.filename}: "
            return _fail(f"{file}{candidate.strerror}", 1)
    traceback.print_exception(error)
    return 1


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


_ON_PURPOSE = {  # by name: that of Lightning takes seconds to import
    *("ValueError", "OSError", "ImportError", "FloatingPointError", "TypeError"),
    "MisconfigurationException",
}


def _fail(message: str, status: int) -> int:
    print(f"lit-generative: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _quiet() -> None:
    """Silence what other libraries say about things that are as they should be here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for message in (
        ".*does not have many workers.*",  # the data are in memory
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*was configured so validation will run.*",
        ".*The dirpath has changed from.*",  # a resumed run has a folder of its own
        ".*callbacks used to create the checkpoint need to be provided.*",  # test needs none of fit's
        ".*args parameter is intended to run from within Python.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*module.s. in eval mode at the start of training.*",  # a frozen autoencoder
    ):
        warnings.filterwarnings("ignore", message)
    import logging

    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "lightning.fabric.utilities.seed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)


def script() -> None:
    """The console script."""
    sys.exit(main())
