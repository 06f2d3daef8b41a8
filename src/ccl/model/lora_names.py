"""How LoRA files call what they change, as data: PEFT, diffusers, ComfyUI, musubi-tuner (kohya), DiffSynth, lightx2v.

A key is a prefix, a module in one of a backbone's namings, and what of the change it holds:
`diffusion_model.blocks.3.self_attn.q.lora_down.weight`, `transformer.blocks.3.attn1.to_q.lora_A.weight`,
`lora_unet_blocks_3_self_attn_q.alpha`, `base_model.model.blocks.3.video.self_attn.q.lora_B.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ccl.model.keys import ROOT, belongs, ours_to_wan, to_ours, wan_to_diffusers

PEFT = "base_model.model."  # before every name of a file of PEFT's
COMFY = "diffusion_model."

Role = Literal["down", "up", "up_bias", "alpha", "diff", "whole"]

# (how a key ends, what it holds, which of the module's parameters it changes). What ends in none of these is a value
# that takes a parameter's place, as PEFT keeps what was trained whole.
ENDINGS: tuple[tuple[str, Role, str], ...] = (
    (r"\.(lora_A|lora_down|lora\.down)(\.default)?(\.weight)?$", "down", ".weight"),
    (r"\.(lora_B|lora_up|lora\.up)(\.default)?(\.weight)?$", "up", ".weight"),
    (r"\.lora_B(\.default)?\.bias$", "up_bias", ".bias"),
    (r"\.alpha$", "alpha", ".weight"),
    (r"\.diff$", "diff", ".weight"),
    (r"\.diff_b$", "diff", ".bias"),
    (r"\.diff_m$", "diff", ".modulation"),
)
# What a name has in it -> what the file is, of which there is no sum of weights to make.
OTHERS: tuple[tuple[str, str], ...] = (
    (r"\.(dora_scale|lora_magnitude_vector)(\.|$)", "a DoRA, which rescales weights as well"),
    (r"\.(hada_[wt]\d|lokr_[wt]\d|lora_mid|b?oft_|glora)", "a LyCORIS adapter (LoHa, LoKr, ...)"),
    (r"\.(reshape_weight|set_weight)$", "a LoRA that gives weights another shape"),
)
# kohya writes a module's dots as underscores, behind one of these.
FLAT = re.compile(r"^(lora_unet|lora_transformer|lycoris)_")
# Of networks that are shown a first picture (I2V) alone.
PICTURE = re.compile(r"(^|[._])(img_emb|cross_attn[._](k_img|v_img|norm_k_img))([._]|$)")


class Place(NamedTuple):
    """Where a key's tensor goes.

    Args:
        name: of the parameter, ours where the network has it, else Wan2.1's.
        role: what the tensor is of the change.
    """

    name: str
    role: Role


class Names:
    """A network's parameters under the names of LoRA files.

    Args:
        own: names of its parameters.
    """

    def __init__(self, own: Iterable[str]) -> None:
        self.own = set(own)
        ends = ".weight"
        modules = {name.removesuffix(ends) for name in self.own if name.endswith(ends) and belongs(name, "video")}
        self.flat: dict[str, str] = {}
        for module in modules:
            wan = ours_to_wan(module)
            for theirs in (wan, wan_to_diffusers(wan)):
                self.flat[theirs.replace(".", "_")] = module

    def place(self, key: str) -> Place:
        """Where the tensor of a key goes."""
        for pattern, role, parameter in ENDINGS:
            if found := re.search(pattern, key):
                return Place(self._ours(key[: found.start()], parameter), role)
        return Place(self._ours(key, ""), "whole")

    def _ours(self, module: str, parameter: str) -> str:
        bare = module.removeprefix(PEFT)
        if bare + parameter in self.own:
            return bare + parameter
        if FLAT.match(module):
            flat = FLAT.sub("", module)
            return self.flat.get(flat, flat) + parameter
        if found := ROOT.search(bare):
            bare = bare[found.end() :]
        name = to_ours(bare + parameter)
        return name if name in self.own else ours_to_wan(name)


def foreign(keys: Iterable[str]) -> str:
    """What a file of such keys is, in words, where its changes are no sums; "" else."""
    keys = list(keys)
    for pattern, what in OTHERS:
        if found := next((key for key in keys if re.search(pattern, key)), None):
            return f"{what} (its keys have {found})"
    return ""
