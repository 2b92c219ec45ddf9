"""Weights of diffusers' ``UNet2DModel`` as ours, and back. Dictionaries in, dictionaries out; nothing is imported.

Their timestep i, 0 to 999, is our time t = (i + 1) / 1000.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_generative.nn.unet import UNet, UNetConventions

__all__ = ["from_diffusers", "to_diffusers"]

# what a config means that does not mention it
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "dropout": 0.0,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "resnet_time_scale_shift": "default",
    "attn_norm_num_groups": None,
}

# options that our network has not got, and the values (the first being the default) that mean they are not used
UNUSED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
}

# our names as patterns, and theirs, applied one after the other
NAMES = {
    r"^stem\.": "conv_in.",
    r"^norm\.": "conv_norm_out.",
    r"^head\.": "conv_out.",
    r"^time\.first\.": "time_embedding.linear_1.",
    r"^time\.second\.": "time_embedding.linear_2.",
    r"^down\.(\d+)\.resize\.(weight|bias)": r"down_blocks.\1.downsamplers.0.conv.\2",
    r"^up\.(\d+)\.resize\.(weight|bias)": r"up_blocks.\1.upsamplers.0.conv.\2",
    r"^down\.(\d+)\.resize\.": r"down_blocks.\1.downsamplers.0.",
    r"^up\.(\d+)\.resize\.": r"up_blocks.\1.upsamplers.0.",
    r"^(down|up)\.(\d+)\.": r"\1_blocks.\2.",
    r"^mid\.": "mid_block.",
    r"\.blocks\.": ".resnets.",
    r"\.time\.": ".time_emb_proj.",
    r"\.shortcut\.": ".conv_shortcut.",
    r"(\.attentions\.\d+)\.norm\.": r"\1.group_norm.",
    r"\.attention\.out\.": ".to_out.0.",
    r"\.attention\.qkv\.": ".to_{qkv}.",
}

# how checkpoints from before diffusers 0.15 name the layers of an attention, Ho et al.'s published ones among them
FORMER_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def from_diffusers(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> UNet:
    """Return a network that computes what diffusers' does.

    Args:
        config: The ``config`` of an unconditional ``UNet2DModel``, or its ``config.json``.
        state: Its ``state_dict()``, or the content of its file of weights.

    Raises:
        ValueError: If the config uses something that :class:`UNet` has not got, or the weights are another network's.
    """
    config = DEFAULTS | {name: value for name, value in config.items() if name in DEFAULTS or name in UNUSED}
    unet = UNet(**_arguments(config))
    state = {_renamed(name, FORMER_NAMES): value for name, value in state.items()}
    theirs = {name: _their_names(name) for name in unet.state_dict()}
    if differing := set(state) ^ {name for names in theirs.values() for name in names}:
        some = sorted(differing)[:3]
        raise ValueError(f"state has not the names that config implies: {len(differing)} differ, such as {some}")
    ours = {name: torch.cat([state[part] for part in names]) for name, names in theirs.items()}
    if config["flip_sin_to_cos"]:  # cosines come first there, sines here
        ours["time.first.weight"] = torch.cat(ours["time.first.weight"].chunk(2, dim=1)[::-1], dim=1)
    unet.load_state_dict(ours)
    return unet


def to_diffusers(unet: UNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights with which diffusers computes what ``unet`` does.

    ``model = UNet2DModel(**config); model.load_state_dict(state)`` gives the network, and
    ``DDPMPipeline(model, DDPMScheduler(...)).save_pretrained(...)`` the folder that others open.

    A network with another ``position`` than the number of the step is to be asked at that position there.

    Raises:
        ValueError: If the network has classes, folds patches, or follows conventions that theirs cannot.
    """
    _refuse_what_is_not_theirs(unet)
    state: dict[str, Tensor] = {}
    for name, value in unet.state_dict().items():
        names = _their_names(name)
        state.update(zip(names, (part.clone() for part in value.chunk(len(names))), strict=True))
    return _config(unet), state


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :class:`UNet` for a config that is complete but for unused options."""
    for name, allowed in UNUSED.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(f"config has {name}={config[name]!r}; only {allowed[0]!r} can be converted")
    down, up, size = config["down_block_types"], config["up_block_types"], config["sample_size"]
    attention = [level for level, kind in enumerate(down) if kind == "AttnDownBlock2D"]
    residual = _residual_resizing(config)
    if _block_types(attention, residual, len(down)) != {"down_block_types": list(down), "up_block_types": list(up)}:
        raise ValueError(
            f"config has blocks {list(down)}, {list(up)}; only (Attn)DownBlock2D, ResnetDownsampleBlock2D and their "
            "mirror are known"
        )
    if size is None:
        raise ValueError("config has sample_size=None; set it to the images' size in pixels")
    multiple, rest = divmod(config["out_channels"], config["in_channels"])
    if rest or config["downsample_padding"] not in (0, 1):
        raise ValueError(
            f"config has in_channels={config['in_channels']}, out_channels={config['out_channels']} and "
            f"downsample_padding={config['downsample_padding']}; only multiples and 0 or 1 can be converted"
        )
    conventions = UNetConventions(
        norm_eps=config["norm_eps"],
        frequency_shift=config["freq_shift"],
        centred_halving=config["downsample_padding"] == 1,
        scale_shift=config["resnet_time_scale_shift"] == "scale_shift",
        residual_resizing=residual,
        bare_middle=config["resnet_time_scale_shift"] == "scale_shift" and config["attn_norm_num_groups"] is None,
    )
    return {
        "image_shape": (config["in_channels"], *((size, size) if isinstance(size, int) else size)),
        "widths": list(config["block_out_channels"]),
        "blocks": config["layers_per_block"],
        "attention": attention,
        "head_dim": config["attention_head_dim"],
        "groups": config["norm_num_groups"],
        "dropout": config["dropout"],
        "output_multiple": multiple,
        "conventions": conventions,
    }


def _residual_resizing(config: Mapping[str, Any]) -> list[int]:
    """Return the levels that are left by a residual block, once all options about that are known ones."""
    ways, kinds = ("conv", "resnet"), ("default", "scale_shift")
    for name, known in {"downsample_type": ways, "upsample_type": ways, "resnet_time_scale_shift": kinds}.items():
        if config[name] not in known:
            raise ValueError(
                f"config has {name}={config[name]!r}; only {' and '.join(map(repr, known))} can be converted"
            )
    if config["attn_norm_num_groups"] not in (None, config["norm_num_groups"]):
        raise ValueError(
            f"config has attn_norm_num_groups={config['attn_norm_num_groups']!r}; only None and norm_num_groups, here "
            f"{config['norm_num_groups']}, can be converted"
        )
    down = config["down_block_types"]
    attended = [level for level, kind in enumerate(down) if kind == "AttnDownBlock2D"]
    if attended and config["downsample_type"] != config["upsample_type"]:
        raise ValueError(
            f"config has downsample_type={config['downsample_type']!r} and upsample_type={config['upsample_type']!r}; "
            "only equal ones can be converted"
        )
    by_type = [level for level, kind in enumerate(down) if kind == "ResnetDownsampleBlock2D"]
    return sorted(by_type + (attended if config["downsample_type"] == "resnet" else []))


def _config(unet: UNet) -> dict[str, Any]:
    (channels, height, width), like = unet.image_shape, unet.conventions
    levels = range(len(unet.widths))
    residual = [level for level in levels if like.resizes_by_block(level)]
    by_block = bool(set(residual) & set(unet.attention))
    return _block_types(unet.attention, residual, len(unet.widths)) | {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels * unet.output_multiple,
        "block_out_channels": list(unet.widths),
        "layers_per_block": unet.blocks,
        "attention_head_dim": unet.head_dim,
        "norm_num_groups": unet.groups,
        "norm_eps": like.norm_eps,
        "dropout": unet.dropout,
        "freq_shift": like.frequency_shift,
        "flip_sin_to_cos": False,
        "downsample_padding": int(like.centred_halving),
        "downsample_type": "resnet" if by_block else "conv",
        "upsample_type": "resnet" if by_block else "conv",
        "resnet_time_scale_shift": "scale_shift" if like.scale_shift else "default",
        "attn_norm_num_groups": unet.groups if like.scale_shift and not like.bare_middle else None,
    }


def _refuse_what_is_not_theirs(unet: UNet) -> None:
    """Raise a ValueError for a network that theirs cannot be."""
    like = unet.conventions
    if unet.num_classes is not None or unet.patch != 1:
        raise ValueError(
            f"num_classes={unet.num_classes} and patch={unet.patch} have no counterpart in diffusers' UNet2DModel; "
            "train with num_classes=None and patch=1 for that"
        )
    others = {
        "stem_width": unet.stem_width != unet.widths[0],
        "skip_scale": like.skip_scale != 1,
        "resized_shortcut": like.resized_shortcut,
        "late_attention": like.late_attention and bool(unet.attention),
        "bare_middle": like.bare_middle and not like.scale_shift,
    }
    if unusual := [name for name, is_so in others.items() if is_so]:
        values = ", ".join(f"{name}={getattr(like, name)!r}" for name in unusual)
        raise ValueError(f"conventions with {values} have no counterpart in diffusers' UNet2DModel; use the default")
    levels = {level for level in range(len(unet.widths)) if like.resizes_by_block(level)}
    attended = set(unet.attention)
    if attended & levels and attended - levels - {len(unet.widths) - 1}:
        raise ValueError(
            f"residual_resizing={like.residual_resizing} has no counterpart in diffusers' UNet2DModel, where levels "
            "with attention are left in one way; use the same for these"
        )


def _block_types(attention: Any, residual: Any, levels: int) -> dict[str, Any]:
    def kind(level: int, way: str, sampled: str) -> str:
        if level in attention:
            return f"Attn{way}Block2D"
        return f"Resnet{sampled}Block2D" if level in residual else f"{way}Block2D"

    return {
        "down_block_types": [kind(level, "Down", "Downsample") for level in range(levels)],
        "up_block_types": [kind(level, "Up", "Upsample") for level in reversed(range(levels))],
    }


def _their_names(ours: str) -> list[str]:
    """Return what diffusers calls one of our tensors: three names where queries, keys and values are one."""
    for pattern, theirs in NAMES.items():
        ours = re.sub(pattern, theirs, ours)
    return [ours.replace("{qkv}", part) for part in "qkv"] if "{qkv}" in ours else [ours]


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name
