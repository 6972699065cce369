# SPDX-License-Identifier: MIT
"""Trains and applies Stable Diffusion LoRA networks, by libsdlora.

    import sdlora
    ctx = sdlora.Context()
    ckpt = sdlora.Checkpoint(ctx, "model.safetensors")
    data = sdlora.Dataset(ctx, train_data_dir="pictures", caption_extension=".txt")
    net = sdlora.Network(ckpt, network_dim=16, network_alpha=8)
    for now in sdlora.Trainer(ckpt, net, data, unet_lr=1e-4, output_dir="out", output_name="mine"):
        print(now.step, now.total, now.average_loss)

Keyword arguments are the library's options; sdlora.option_rows() lists them."""
from . import _lib, tools
from ._error import (
    BackendError, CanceledError, Error, FormatError, InputOutputError, InvalidError, NotFiniteError,
    NotFoundError, NotSupportedError, OutOfMemoryError, VersionError,
)
from .checkpoint import Checkpoint, Vae
from .context import Context, DeviceInfo
from .dataset import Dataset, DatasetItem
from .generator import Generator, samplers, schedulers
from .grid import Grid, axes
from .image import Image
from .network import Network, dialects
from .options import OptionInfo, Options, option_rows
from .trainer import Progress, Trainer, evaluate, plan

__version__ = _lib.lib.sdlora_version().decode()

__all__ = [
    "BackendError", "CanceledError", "Checkpoint", "Context", "Dataset", "DatasetItem",
    "DeviceInfo", "Error", "FormatError", "Generator", "Grid", "Image", "InputOutputError", "InvalidError",
    "Network", "NotFiniteError", "NotFoundError", "NotSupportedError", "OptionInfo", "Options",
    "OutOfMemoryError", "Progress", "Trainer", "Vae", "VersionError", "axes", "dialects", "evaluate", "option_rows",
    "plan", "samplers", "schedulers",
    "tools",
]
