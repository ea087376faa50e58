"""Swin Transformer (Liu et al., ICCV 2021) for pictures of any size, with an FPN."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from timm.layers import DropPath, Mlp, PatchEmbed, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from querypose.modeling.backbone.fpn import attach_fpn

_PATCH_SIZE = 4
_MLP_RATIO = 4
# Added to the attention logit of two tokens that the cyclic shift alone made neighbours.
_BLOCKED = -100.0


def _to_windows(maps: Tensor, window: int) -> Tensor:
    """(B, H, W, C), sides multiples of ``window`` -> (B * windows, window**2, C)."""
    batch, height, width, channels = maps.shape
    grid = maps.view(batch, height // window, window, width // window, window, channels)
    return grid.transpose(2, 3).reshape(-1, window * window, channels)


def _from_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of ``_to_windows``."""
    channels = windows.shape[-1]
    grid = windows.view(-1, height // window, width // window, window, window, channels)
    return grid.transpose(2, 3).reshape(-1, height, width, channels)


def _shift_mask(padded_map: Tensor, window: int, shift: int) -> Tensor:
    """Additive attention mask (windows, window**2, window**2) of a rolled (B, H, W, C) map."""

    def regions(length: int) -> Tensor:
        index = torch.arange(length, device=padded_map.device)
        return (index >= length - window).int() + (index >= length - shift).int()

    height, width = padded_map.shape[1:3]
    labels = 3 * regions(height)[:, None] + regions(width)
    windows = _to_windows(labels[None, :, :, None], window)
    return (windows != windows.transpose(1, 2)).to(padded_map.dtype) * _BLOCKED


def _relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of a window's cells, (window**2, window**2)."""
    axis = torch.arange(window)
    cells = torch.cartesian_prod(axis, axis)
    offsets = cells[:, None] - cells[None] + window - 1
    return offsets[..., 0] * (2 * window - 1) + offsets[..., 1]


def _keep_position_index(
    module: WindowAttention, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """A ``load_state_dict`` pre-hook: not every file has the index, which the window decides."""
    state_dict.setdefault(f"{prefix}relative_position_index", module.relative_position_index)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside a window, with a relative position bias (section 3.2)."""

    def __init__(self, *, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window - 1) ** 2, num_heads)
        )
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_position_index(window))
        self.register_load_state_dict_pre_hook(_keep_position_index)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attends within (B * windows, cells, dim); ``mask`` is (windows, cells, cells)."""
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(windows.shape[0] // mask.shape[0], 1, 1, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """Window attention and MLP, both residual; ``shift`` moves the windows by so many cells."""

    def __init__(
        self, *, dim: int, num_heads: int, window: int, shift: int, drop_path: float
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim=dim, num_heads=num_heads, window=window)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, _MLP_RATIO * dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, H, W, dim) to the same shape."""
        maps = maps + self.drop_path(self._attend(self.norm1(maps)))
        return maps + self.drop_path(self.mlp(self.norm2(maps)))

    def _attend(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[1:3]
        # Pad first, roll after: released weights were trained so.
        maps = F.pad(maps, (0, 0, 0, -width % self.window, 0, -height % self.window))
        padded_height, padded_width = maps.shape[1:3]
        mask = None
        if self.shift:
            mask = _shift_mask(maps, self.window, self.shift)
            maps = maps.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(_to_windows(maps, self.window), mask)
        maps = _from_windows(windows, self.window, padded_height, padded_width)
        if self.shift:
            maps = maps.roll((self.shift, self.shift), dims=(1, 2))
        return maps[:, :height, :width]


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the channels (section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, H, W, dim) to (B, ceil(H / 2), ceil(W / 2), 2 * dim)."""
        height, width = maps.shape[1:3]
        maps = F.pad(maps, (0, 0, 0, width % 2, 0, height % 2))
        corners = [maps[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution; every second one has shifted windows."""

    def __init__(
        self, *, dim: int, num_heads: int, window: int, drop_paths: Sequence[float], merge: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                num_heads=num_heads,
                window=window,
                shift=(index % 2) * (window // 2),
                drop_path=drop_path,
            )
            for index, drop_path in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim) if merge else nn.Identity()


class SwinTransformer(Backbone):
    """Swin Transformer whose four stages are all outputs, each after a LayerNorm.

    Windows are shifted in every second block of every stage, whatever the map's size; maps that
    are no multiple of the window are padded with zeros before the shift.

    Args:
        embed_dim: channels of the first stage; every stage doubles them.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_size: cells on a window's side.
        drop_path_rate: drop probability of the last block; it grows linearly from zero.
        use_checkpoint: recompute the blocks' activations in the backward pass to save memory.
        in_channels: channels of the picture.

    Raises:
        ValueError: ``num_heads`` does not give every stage a divisor of its channels.
    """

    @configurable
    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path_rate: float = 0.2,
        use_checkpoint: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        dims = [embed_dim * 2**stage for stage in range(len(depths))]
        if len(num_heads) != len(dims) or any(map(operator.mod, dims, num_heads)):
            raise ValueError(
                f"MODEL.SWIN.NUM_HEADS {list(num_heads)} must give each of the {len(dims)} stages "
                f"in DEPTHS a divisor of its channels {dims}."
            )
        self.use_checkpoint = use_checkpoint
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=_PATCH_SIZE,
            in_chans=in_channels,
            embed_dim=embed_dim,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
            dynamic_img_pad=True,
        )
        last_block = max(sum(depths) - 1, 1)
        # Plain numbers: a model may be built on the meta device.
        drop_paths = iter([drop_path_rate * i / last_block for i in range(sum(depths))])
        self.layers = nn.ModuleList(
            SwinStage(
                dim=dim,
                num_heads=num_heads[stage],
                window=window_size,
                drop_paths=list(itertools.islice(drop_paths, depths[stage])),
                merge=dim != dims[-1],
            )
            for stage, dim in enumerate(dims)
        )
        for stage, dim in enumerate(dims):
            self.add_module(f"norm{stage}", nn.LayerNorm(dim))
        self.apply(_init_linear)
        self._out_features = [f"res{stage + 2}" for stage in range(len(dims))]
        self._out_feature_channels = dict(zip(self._out_features, dims, strict=True))
        self._out_feature_strides = {
            name: _PATCH_SIZE * 2**stage for stage, name in enumerate(self._out_features)
        }

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.SWIN."""
        node = cfg.MODEL.SWIN
        return {
            "embed_dim": node.EMBED_DIM,
            "depths": node.DEPTHS,
            "num_heads": node.NUM_HEADS,
            "window_size": node.WINDOW_SIZE,
            "drop_path_rate": node.DROP_PATH_RATE,
            "use_checkpoint": node.CHECKPOINT,
            "in_channels": input_shape.channels,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalised pictures of any size to "res2".."res5".

        Returns:
            Maps (B, embed_dim * 2**i, ceil(H / s), ceil(W / s)) for s = 4, 8, 16, 32.
        """
        maps = self.patch_embed(images)
        outputs = {}
        for index, (name, stage) in enumerate(zip(self._out_features, self.layers, strict=True)):
            for block in stage.blocks:
                maps = self._run(block, maps)
            outputs[name] = getattr(self, f"norm{index}")(maps).permute(0, 3, 1, 2).contiguous()
            maps = stage.downsample(maps)
        return outputs

    def _run(self, block: SwinBlock, maps: Tensor) -> Tensor:
        if self.use_checkpoint and self.training:
            return checkpoint(block, maps, use_reentrant=False)
        return block(maps)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONE_REGISTRY.register()
def build_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Swin Transformer with Detectron2's FPN."""
    return attach_fpn(cfg, SwinTransformer(cfg, input_shape))
