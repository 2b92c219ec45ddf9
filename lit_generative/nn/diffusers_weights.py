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
}

# options that our network has not got, and the values (the first being the default) that mean they are not used
UNUSED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "attn_norm_num_groups": (None,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}

# our names as patterns, and theirs, applied one after the other
NAMES = {
    r"^stem\.": "conv_in.",
    r"^norm\.": "conv_norm_out.",
    r"^head\.": "conv_out.",
    r"^time\.first\.": "time_embedding.linear_1.",
    r"^time\.second\.": "time_embedding.linear_2.",
    r"^down\.(\d+)\.resize\.": r"down_blocks.\1.downsamplers.0.conv.",
    r"^up\.(\d+)\.resize\.": r"up_blocks.\1.upsamplers.0.conv.",
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

    Raises:
        ValueError: If the network has classes or folds patches, which theirs does not.
    """
    if unet.num_classes is not None or unet.patch != 1:
        raise ValueError(
            f"num_classes={unet.num_classes} and patch={unet.patch} have no counterpart in diffusers' UNet2DModel; "
            "train with num_classes=None and patch=1 for that"
        )
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
    if _block_types(attention, len(down)) != {"down_block_types": list(down), "up_block_types": list(up)}:
        raise ValueError(
            f"config has blocks {list(down)}, {list(up)}; only (Attn)DownBlock2D and their mirror are known"
        )
    if size is None:
        raise ValueError("config has sample_size=None; set it to the images' size in pixels")
    multiple, rest = divmod(config["out_channels"], config["in_channels"])
    if rest or config["downsample_padding"] not in (0, 1):
        raise ValueError(
            f"config has in_channels={config['in_channels']}, out_channels={config['out_channels']} and "
            f"downsample_padding={config['downsample_padding']}; only multiples and 0 or 1 can be converted"
        )
    conventions = UNetConventions(config["norm_eps"], config["freq_shift"], config["downsample_padding"] == 1)
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


def _config(unet: UNet) -> dict[str, Any]:
    channels, height, width = unet.image_shape
    return _block_types(unet.attention, len(unet.widths)) | {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels * unet.output_multiple,
        "block_out_channels": list(unet.widths),
        "layers_per_block": unet.blocks,
        "attention_head_dim": unet.head_dim,
        "norm_num_groups": unet.groups,
        "norm_eps": unet.conventions.norm_eps,
        "dropout": unet.dropout,
        "freq_shift": unet.conventions.frequency_shift,
        "flip_sin_to_cos": False,
        "downsample_padding": int(unet.conventions.centred_halving),
    }


def _block_types(attention: Any, levels: int) -> dict[str, Any]:
    kinds = ["Attn" if level in attention else "" for level in range(levels)]
    return {
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
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
