"""Imports single modules of an AUTOMATIC1111 checkout without its user interface.

Modules named in REAL come from the checkout; everything else under `modules.` and the heavy third-party packages are mocks.
Options have the defaults of v1.10.1, except that noise comes from the CPU generator.
"""
import importlib.machinery
import importlib.util
import sys
import types
from unittest.mock import MagicMock

import torch

REAL = {"prompt_parser", "rng", "rng_philox", "sd_emphasis", "sd_hijack_clip", "sd_samplers_common", "sd_samplers_cfg_denoiser",
        "sd_samplers_kdiffusion", "sd_samplers_extra", "sd_samplers_lcm", "sd_samplers_timesteps", "sd_samplers_timesteps_impl", "sd_schedulers",
        "torch_utils", "infotext_utils", "infotext_versions", "processing", "models", "models.diffusion", "models.diffusion.uni_pc",
        "models.diffusion.uni_pc.uni_pc"}
MOCKED = ("gradio", "ldm", "blendmodes", "clip", "sgm", "skimage")


class Options(types.SimpleNamespace):
    CLIP_stop_at_last_layers = 1
    comma_padding_backtrack = 20
    emphasis = "Original"
    randn_source = "CPU"
    batch_cond_uncond = True
    live_preview_content = "Prompt"
    infotext_styles = "Ignore"
    infotext_skip_pasting = ()
    auto_backcompat = True
    eta_ancestral = 1.0
    s_noise = 1.0
    beta_dist_alpha = beta_dist_beta = 0.6
    add_model_hash_to_info = add_model_name_to_info = add_vae_hash_to_info = add_vae_name_to_info = True
    add_version_to_infotext = True

    def __getattr__(self, name):  # every other option that these modules read is off or zero by default
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


class Finder:
    def __init__(self, checkout):
        self.root = checkout

    def find_spec(self, name, path=None, target=None):
        if name == "modules" or name.startswith("modules.") and name[8:] in REAL:
            base = f"{self.root}/{name.replace('.', '/')}"
            if name == "modules":
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
            spec = importlib.util.spec_from_file_location(name, base + ".py")
            try:
                open(base + ".py").close()
                return spec
            except OSError:
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
        if name.startswith("modules.") or name.split(".")[0] in MOCKED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        short = spec.name.removeprefix("modules.")
        if spec.name == "modules" or short in REAL:
            module = types.ModuleType(spec.name)
        else:
            module = MagicMock(name=spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


def setup(checkout):
    """Installs the finder; returns (shared, options)."""
    kd = types.ModuleType("k_diffusion")  # the package's own __init__ pulls in training code
    kd.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    sys.modules["k_diffusion"] = kd
    sys.meta_path.insert(0, Finder(checkout))
    import k_diffusion.external
    import k_diffusion.sampling
    kd.external, kd.sampling = k_diffusion.external, k_diffusion.sampling
    from modules import devices, shared
    opts = Options()
    shared.opts, shared.device = opts, torch.device("cpu")
    shared.state = types.SimpleNamespace(interrupted=False, skipped=False, sampling_step=0, sampling_steps=0)
    devices.cpu = devices.device = torch.device("cpu")
    devices.fp8 = False
    return shared, opts


def rounded(*names):
    """Computes torch's functions of f32 (and powers) by way of doubles: their last bit depends on the processor and on the length
    of the array, and the noise of SDE samplers would depend on it too."""
    for name in names:
        def exact(x, plain=getattr(torch, name)):
            return plain(x.double()).float() if x.dtype == torch.float32 else plain(x)
        setattr(torch, name, exact)
        setattr(torch.Tensor, name, exact)
    power = torch.Tensor.__pow__
    torch.Tensor.__pow__ = lambda x, y: power(x.double(), y).float() if x.dtype == torch.float32 else power(x, y)


def callbacks():
    """Makes the denoiser's callback parameter objects plain holders, so that no mock reaches the arithmetic."""
    from modules import script_callbacks as sc
    sc.CFGDenoiserParams = lambda x, image, sigma, step, steps, cond, uncond, den: types.SimpleNamespace(
        x=x, image_cond=image, sigma=sigma, text_cond=cond, text_uncond=uncond)
    sc.CFGDenoisedParams = sc.AfterCFGCallbackParams = lambda x, *a: types.SimpleNamespace(x=x)


class Holder:
    """What sd_hijack_clip wants as its `wrapped` embedder and its `hijack`."""

    def __init__(self, tokenizer, transformer):
        self.tokenizer, self.transformer = tokenizer, transformer
        self.embedding_db = types.SimpleNamespace(find_embedding_at_position=lambda *a: (None, None))
        self.extra_generation_params = {}


def embedder(tokenizer, transformer):
    from modules import sd_hijack_clip
    held = Holder(tokenizer, transformer)
    return sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords(held, held)
