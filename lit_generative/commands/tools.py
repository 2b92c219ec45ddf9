"""``sample``, ``edit``, ``latent``, ``export`` and ``extractor``: functions whose signatures are their options."""

import inspect

from lit_generative.data import ImageDataModule
from lit_generative.drawing import draw_samples
from lit_generative.editing.edit import edit_file
from lit_generative.exporting import export_checkpoint
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.latent_space.write import draw_latents
from lit_generative.training.extractor import train_extractor
from lit_generative.training.parser import command_parser
from lit_generative.training.spellings import spelled

__all__ = ["edit", "export", "extractor", "latent", "sample"]


def sample(arguments: list[str]) -> None:
    """Draw images from a trained model into PNG files."""
    parser = command_parser("sample", sample.__doc__, usage="lit-generative sample CKPT --output DIR [OPTIONS]")
    parser.add_function_arguments(draw_samples)
    draw_samples(**parser.instantiate(parser.parse_args(spelled("sample", arguments))).as_dict())


def latent(arguments: list[str]) -> None:
    """Lay open the latent space of one model, in pictures, and of a VAE in numbers and a table, too.

    Reconstructions, traversals and a map of a VAE, interpolations of every family, the denoising of a diffusion model.
    """
    parser = command_parser("latent", latent.__doc__, usage="lit-generative latent CKPT --output DIR [OPTIONS]")
    parser.add_function_arguments(draw_latents, skip={"request"})
    names = parser.add_class_arguments(LatentRequest, instantiate=False)
    options = parser.instantiate(parser.parse_args(spelled("latent", arguments))).as_dict()
    draw_latents(request=LatentRequest(**{name: options.pop(name) for name in names}), **options)


def export(arguments: list[str]) -> None:
    """Write the model of a checkpoint in another form: with its adapters merged, or with adapters put on it."""
    usage = "lit-generative export CKPT --merge_adapters --output FILE.ckpt [OPTIONS]"
    parser = command_parser("export", export.__doc__, usage=usage)
    parser.add_function_arguments(export_checkpoint, skip={"merge_adapters"})
    parser.add_argument("--merge_adapters", action="store_true", help="Put what adapters add into the weights.")
    export_checkpoint(**parser.instantiate(parser.parse_args(spelled("export", arguments))).as_dict())


def extractor(arguments: list[str]) -> None:
    """Train a feature extractor on labelled images."""
    parser = command_parser(
        "extractor", extractor.__doc__, usage="lit-generative extractor --data.dataset DATA --output FILE [OPTIONS]"
    )
    parser.add_class_arguments(ImageDataModule, "data")
    parser.add_function_arguments(train_extractor, skip={"data"})
    options = parser.instantiate(parser.parse_args(spelled("extractor", arguments)))
    train_extractor(**{name: options[name] for name in inspect.signature(train_extractor).parameters})


def edit(arguments: list[str]) -> None:
    """Change a picture of any size by a diffusion model: fill a hole, remake it, or enlarge it.

    One of --mask, --start and --upscale says which.
    """
    usage = "lit-generative edit CKPT IMAGE --mask FILE|--start 0.5|--upscale --output FILE [OPTIONS]"
    parser = command_parser("edit", edit.__doc__, usage=usage)
    parser.add_function_arguments(edit_file, skip={"upscale"})
    parser.add_argument("--upscale", action="store_true", help="Enlarge it by the factor of a super-resolution model.")
    edit_file(**parser.instantiate(parser.parse_args(spelled("edit", arguments))).as_dict())
