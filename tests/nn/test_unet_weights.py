"""Weights of diffusers' U-Nets as ours and back, on networks of random weights."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from lit_generative.diffusion import CosineSchedule, LogSNRPosition
from lit_generative.nn import (
    ADMConventions,
    DDPMPlusPlusConventions,
    UNet,
    UNetConventions,
    from_diffusers,
    to_diffusers,
)
from lit_generative.nn.diffusers_weights import DEFAULTS, UNUSED

# what google/ddpm-cifar10-32 and google/ddpm-celebahq-256 have in common: Ho et al.'s network
HO: dict[str, Any] = {"attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
HO |= {"norm_eps": 1e-6, "layers_per_block": 2}
SMALL: dict[str, Any] = {"norm_num_groups": 4, "sample_size": 16}


def levels(widths: tuple[int, ...], *attention: int) -> dict[str, Any]:
    kinds = ["Attn" if level in attention else "" for level in range(len(widths))]
    down, up = [f"{k}DownBlock2D" for k in kinds], [f"{k}UpBlock2D" for k in reversed(kinds)]
    return {"block_out_channels": widths, "down_block_types": down, "up_block_types": up}


RESIDUAL: dict[str, Any] = {"downsample_type": "resnet", "upsample_type": "resnet"}
ADM: dict[str, Any] = RESIDUAL | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4}


def resnets(widths: tuple[int, ...], *attention: int) -> dict[str, Any]:
    """As :func:`levels`, with residual blocks between levels that have no attention."""
    found = levels(widths, *attention)
    return found | {
        name: [kind.replace("Down", "ResnetDownsample").replace("Up", "ResnetUpsample") if kind[0] != "A" else kind
               for kind in found[name]]
        for name in ("down_block_types", "up_block_types")
    }  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "adm": SMALL | ADM | resnets((8, 16, 16), 1, 2) | {"attention_head_dim": 8, "sample_size": 16},
    "adm without attention": SMALL | ADM | resnets((8, 16)),
    "improved ddpm": SMALL | levels((8, 16), 1) | {"resnet_time_scale_shift": "scale_shift", "out_channels": 6},
    "scale-shift, attention's groups": SMALL
    | levels((8, 16), 0)
    | ADM
    | {"downsample_type": "conv"}
    | {"upsample_type": "conv"},
    "resnet where there is attention": SMALL | levels((8, 16, 16), 1, 2) | RESIDUAL,
    "resnet where there is none": SMALL | resnets((8, 16, 16), 2),
    "one option alone": SMALL | {"block_out_channels": (8, 16, 24, 32)} | RESIDUAL,
    "scale-shift alone": SMALL | {"block_out_channels": (8, 16, 24, 32), "resnet_time_scale_shift": "scale_shift"},
    "cifar10": SMALL | HO | levels((8, 16, 16, 16), 1),
    "celebahq": SMALL | HO | levels((8, 8, 16, 16, 32, 32), 4) | {"sample_size": 32},
    "library's defaults": SMALL | {"block_out_channels": (8, 16, 24, 32)},
    "no attention": SMALL | levels((8, 8)) | {"layers_per_block": 1, "in_channels": 1, "out_channels": 1},
    "one level": SMALL | levels((8,), 0) | {"layers_per_block": 3},
    "learned variance": SMALL | levels((8, 16), 1) | {"out_channels": 6, "sample_size": (16, 24)},
}


def random_model(config: dict[str, Any]) -> Any:
    """Make a model of which every parameter matters to the output, biases and normalisations too."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return model


def outputs(model: Any, unet: UNet, n: int = 4) -> tuple[Tensor, Tensor]:
    i = torch.tensor([0, 1, 500, 999])[-n:]
    x = torch.randn(n, *unet.image_shape)
    with torch.no_grad():
        return model(x, i).sample, unet.eval()(x, (i + 1) / 1000)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_model_of_diffusers_and_ours_compute_the_same(config: dict[str, Any]) -> None:
    model = random_model(config)
    unet = from_diffusers(model.config, model.state_dict())
    theirs, ours = outputs(model, unet)
    assert theirs.std() > 0.05
    assert (theirs - ours).abs().max() < 1e-4

    back = diffusers.UNet2DModel(**to_diffusers(unet)[0]).eval()
    back.load_state_dict(to_diffusers(unet)[1])
    theirs, ours = outputs(back, unet)
    assert (theirs - ours).abs().max() < 1e-4


def test_ho_et_al_s_network_for_cifar10() -> None:
    options = HO | levels((128, 256, 256, 256), 1) | {"sample_size": 32}
    model = diffusers.UNet2DModel(**options).eval()
    unet = from_diffusers(model.config, model.state_dict())
    assert sum(p.numel() for p in unet.parameters()) == sum(p.numel() for p in model.parameters()) == 35_746_307
    theirs, ours = outputs(model, unet, n=1)
    assert (theirs - ours).abs().max() < 1e-4


def test_our_network_opens_as_a_pipeline(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet((1, 16, 16), widths=(8, 16), groups=4, head_dim=8)
    nn.init.normal_(unet.head.weight, std=0.1)
    config, state = to_diffusers(unet)
    model = diffusers.UNet2DModel(**config)
    model.load_state_dict(state)
    diffusers.DDPMPipeline(model, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 1)
    again = from_diffusers(pipeline.unet.config, pipeline.unet.state_dict())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in unet.state_dict().items())
    assert all(value.data_ptr() != state[name].data_ptr() for name, value in model.state_dict().items())


def test_names_from_before_diffusers_0_15() -> None:
    model = random_model(CONFIGS["cifar10"])
    former = {}
    for name, value in model.state_dict().items():
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(new, old)
        former[name] = value
    assert former.keys() != model.state_dict().keys()
    theirs, ours = outputs(model, from_diffusers(model.config, former))
    assert (theirs - ours).abs().max() < 1e-4


def test_what_a_config_leaves_out_has_the_library_s_value() -> None:
    config = diffusers.UNet2DModel(sample_size=16, block_out_channels=(32, 32, 32, 32)).config
    own = {"sample_size", "block_out_channels"}
    for name, value in DEFAULTS.items():
        assert name in own or config[name] == value or list(config[name]) == list(value), name
    assert all(config[name] == values[0] for name, values in UNUSED.items())


def test_every_option_of_the_library_is_known() -> None:
    config = diffusers.UNet2DModel(sample_size=16, block_out_channels=(32, 32, 32, 32)).config
    named = {name for name in config if not name.startswith("_")}
    assert named - {"num_train_timesteps"} == set(DEFAULTS) | set(UNUSED)  # that one is for learned embeddings only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial'; only 'default' and 'scale_shift'"),
        ({"downsample_type": "fir"}, "downsample_type='fir'; only 'conv' and 'resnet'"),
        ({"downsample_type": "resnet"}, "downsample_type='resnet' and upsample_type='conv'; only equal ones"),
        ({"attn_norm_num_groups": 2}, "attn_norm_num_groups=2; only None and norm_num_groups, here 4"),
        ({"num_class_embeds": 10}, "num_class_embeds=10; only None"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"down_block_types": ["DownBlock2D"] * 4}, "config has blocks"),
        ({"down_block_types": ["SkipDownBlock2D"] * 4}, "config has blocks"),
        ({"sample_size": None}, "sample_size=None; set it"),
        ({"out_channels": 4}, "in_channels=3, out_channels=4"),
        ({"downsample_padding": 2}, "downsample_padding=2"),
    ],
)
def test_a_config_of_another_network_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_diffusers(CONFIGS["cifar10"] | change, {})


def test_weights_of_another_network_are_refused() -> None:
    config = CONFIGS["no attention"]
    state = random_model(config).state_dict()
    with pytest.raises(ValueError, match=r"2 differ, such as \['conv_in.bias', 'conv_stem.bias'\]"):
        from_diffusers(config, {name.replace("conv_in.bias", "conv_stem.bias"): v for name, v in state.items()})
    with pytest.raises(RuntimeError, match="size mismatch for stem"):
        from_diffusers(config, state | {"conv_in.weight": torch.zeros(8, 3, 3, 3)})


@pytest.mark.parametrize(
    "option",
    [
        {"patch": 2},
        {"num_classes": 10},
        {"conventions": DDPMPlusPlusConventions()},
        {"conventions": UNetConventions(stem_width=4)},
        {"conventions": UNetConventions(late_attention=True)},
        {"conventions": UNetConventions(residual_resizing=[0]), "attention": (0, 1), "widths": (8, 8, 8)},
    ],
    ids=str,
)
def test_what_diffusers_has_not_got_is_not_converted(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no counterpart in diffusers"):
        to_diffusers(UNet((1, 16, 16), **({"widths": (8, 16), "groups": 4} | option)))


@pytest.mark.parametrize(
    ("conventions", "attention"),
    [
        (ADMConventions(), (1, 2)),
        (ADMConventions(), ()),
        (ADMConventions(residual_resizing=[]), (0,)),
        (ADMConventions(bare_middle=True), ()),
    ],
    ids=str,
)
def test_our_own_networks_open_there(conventions: UNetConventions, attention: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    unet = UNet((3, 16, 16), (8, 16, 16), 1, attention, head_dim=4, groups=4, conventions=conventions).eval()
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    config, state = to_diffusers(unet)
    model = diffusers.UNet2DModel(**config).eval()
    model.load_state_dict(state)
    theirs, ours = outputs(model, unet)
    assert (theirs - ours).abs().max() < 1e-4 * theirs.abs().max()


def test_log_snr_positions_are_timesteps_that_need_not_be_whole() -> None:
    schedule = CosineSchedule()
    model = random_model(CONFIGS["adm"] | {"freq_shift": 1, "flip_sin_to_cos": False})
    unet = from_diffusers(model.config, model.state_dict())
    unet.time.position = LogSNRPosition(schedule)
    t, x = torch.tensor([0.01, 0.3, 0.6, 1.0]), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        theirs = model(x, -schedule.log_snr(t) / 8).sample
        assert (theirs - unet.eval()(x, t)).abs().max() < 1e-4


def test_published_networks_have_their_number_of_parameters() -> None:
    """ADM for 64 x 64 without classes and with a learned variance; EDM's DDPM++ for CIFAR-10 without augmentation."""

    def count(unet: UNet) -> int:
        return sum(p.numel() for p in unet.parameters())

    with torch.device("meta"):
        adm = UNet(
            (3, 64, 64),
            (192, 384, 576, 768),
            3,
            (1, 2, 3),
            64,
            dropout=0.1,
            output_multiple=2,
            conventions=ADMConventions(),
        )
        ddpmpp = UNet((3, 32, 32), (256, 256, 256), 4, (1,), conventions=DDPMPlusPlusConventions(stem_width=128))
    assert count(adm) == pytest.approx(295.9e6 - 1000 * 768, rel=2e-3)
    assert count(ddpmpp) == pytest.approx(55.73e6, rel=2e-3)
