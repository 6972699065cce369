# SPDX-License-Identifier: MIT
"""The C interface as one list: (name, result, argument types) of every public function.

tests/test_decl.py compares it with the headers.  `status` marks functions whose negative result
becomes an exception.
"""
from ctypes import (
    CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t,
    c_uint8, c_uint64, c_void_p,
)


class status:
    """Result type of fallible functions: an int, checked by _lib."""


handle = c_void_p   # any opaque sdlora_* pointer
out = POINTER(c_void_p)
handles = POINTER(c_void_p)
reals = POINTER(c_double)


class Error(Structure):
    _fields_ = [("code", c_int32), ("reserved0", c_int32), ("message", c_char_p),
                ("where", c_char_p)]


class DeviceInfo(Structure):
    _fields_ = [("struct_size", c_size_t), ("name", c_char * 64), ("backend", c_char * 32),
                ("mem_total", c_uint64), ("mem_free", c_uint64), ("host_memory", c_int32),
                ("threads", c_int32)]


class OptionInfo(Structure):
    _fields_ = [("struct_size", c_size_t), ("kind", c_char_p), ("name", c_char_p),
                ("help", c_char_p), ("choices", c_char_p), ("default_text", c_char_p),
                ("min", c_double), ("max", c_double), ("type", c_int32), ("reserved0", c_int32)]


class DatasetItem(Structure):
    _fields_ = [("struct_size", c_size_t), ("path", c_char_p), ("caption", c_char_p),
                ("repeats", c_int64), ("width", c_int32), ("height", c_int32),
                ("bucket_width", c_int32), ("bucket_height", c_int32), ("resized_width", c_int32),
                ("resized_height", c_int32), ("crop_left", c_int32), ("crop_top", c_int32)]


class Progress(Structure):
    _fields_ = [("struct_size", c_size_t), ("step", c_int64), ("total", c_int64),
                ("epoch", c_int64), ("epochs", c_int64), ("loss", c_double),
                ("average_loss", c_double), ("unet_lr", c_double), ("text_encoder_lr", c_double),
                ("grad_norm", c_double), ("val_loss", c_double), ("elapsed", c_double),
                ("eta", c_double), ("phase", c_char_p), ("phase_done", c_int64),
                ("phase_total", c_int64), ("text_encoder_2_lr", c_double)]


STRUCTS = {"sdlora_error": Error, "sdlora_device_info": DeviceInfo,
           "sdlora_option_info": OptionInfo, "sdlora_dataset_item": DatasetItem,
           "sdlora_progress": Progress}

log_fn = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
progress_fn = CFUNCTYPE(c_int, POINTER(Progress), c_void_p)
sample_fn = CFUNCTYPE(c_int, c_int64, c_int64, c_void_p)
grid_model_fn = CFUNCTYPE(c_int, out, c_char_p, c_void_p)

FUNCTIONS = [
    # types.h
    ("sdlora_last_error", POINTER(Error), []),
    ("sdlora_version", c_char_p, []),
    # context.h
    ("sdlora_context_new", status, [out, handle, c_void_p]),
    ("sdlora_context_ref", handle, [handle]),
    ("sdlora_context_unref", None, [handle]),
    ("sdlora_context_set_log", status, [handle, c_int, log_fn, c_void_p]),
    ("sdlora_context_device_count", c_size_t, [handle]),
    ("sdlora_context_device_info", status, [handle, c_size_t, POINTER(DeviceInfo)]),
    ("sdlora_context_device_note", c_char_p, [handle, c_size_t]),
    ("sdlora_context_memory_used", c_uint64, [handle]),
    ("sdlora_context_memory_peak", c_uint64, [handle]),
    # options.h
    ("sdlora_options_new", status, [out, c_char_p]),
    ("sdlora_options_ref", handle, [handle]),
    ("sdlora_options_unref", None, [handle]),
    ("sdlora_options_kind", c_char_p, [handle]),
    ("sdlora_options_set_int", status, [handle, c_char_p, c_int64]),
    ("sdlora_options_set_real", status, [handle, c_char_p, c_double]),
    ("sdlora_options_set_text", status, [handle, c_char_p, c_char_p]),
    ("sdlora_options_from_metadata", status, [handle, handle, c_char_p, POINTER(c_void_p)]),
    ("sdlora_options_get_int", status, [handle, c_char_p, POINTER(c_int64)]),
    ("sdlora_options_get_real", status, [handle, c_char_p, reals]),
    ("sdlora_options_get_text", status, [handle, c_char_p, POINTER(c_char_p)]),
    ("sdlora_options_from_infotext", status, [handle, handle, c_char_p, POINTER(c_void_p)]),
    ("sdlora_option_at", status, [c_char_p, c_size_t, POINTER(OptionInfo)]),
    # checkpoint.h
    ("sdlora_checkpoint_open", status, [out, handle, c_char_p, handle]),
    ("sdlora_checkpoint_ref", handle, [handle]),
    ("sdlora_checkpoint_unref", None, [handle]),
    ("sdlora_checkpoint_family", c_char_p, [handle]),
    ("sdlora_checkpoint_layout", c_char_p, [handle]),
    ("sdlora_checkpoint_path", c_char_p, [handle]),
    ("sdlora_vae_open", status, [out, handle, c_char_p]),
    ("sdlora_vae_ref", handle, [handle]),
    ("sdlora_vae_unref", None, [handle]),
    ("sdlora_tokenize", status, [handle, c_char_p, POINTER(c_int32), c_size_t, POINTER(c_size_t)]),
    ("sdlora_file_info", status, [handle, c_char_p, c_int, POINTER(c_void_p)]),
    ("sdlora_text_free", None, [handle, c_void_p]),
    # network.h
    ("sdlora_network_new", status, [out, handle, handle, c_uint64]),
    ("sdlora_network_open", status, [out, handle, c_char_p]),
    ("sdlora_network_open_with", status, [out, handle, c_char_p, handle]),
    ("sdlora_network_ref", handle, [handle]),
    ("sdlora_network_unref", None, [handle]),
    ("sdlora_network_name", c_char_p, [handle]),
    ("sdlora_network_modules", c_size_t, [handle]),
    ("sdlora_network_metadata", c_char_p, [handle, c_char_p]),
    ("sdlora_network_save", status, [handle, c_char_p, c_char_p]),
    ("sdlora_network_save_as", status, [handle, c_char_p, c_char_p, c_char_p]),
    ("sdlora_network_skipped", c_size_t, [handle]),
    ("sdlora_network_skipped_key", c_char_p, [handle, c_size_t]),
    ("sdlora_dialect_name", c_char_p, [c_size_t]),
    ("sdlora_checkpoint_merge", status, [out, handle, handles, reals, reals, c_size_t]),
    # dataset.h
    ("sdlora_dataset_open", status, [out, handle, handle]),
    ("sdlora_dataset_ref", handle, [handle]),
    ("sdlora_dataset_unref", None, [handle]),
    ("sdlora_dataset_images", c_size_t, [handle]),
    ("sdlora_dataset_views", c_int64, [handle]),
    ("sdlora_dataset_batches_per_epoch", c_int64, [handle]),
    ("sdlora_dataset_item_at", status, [handle, c_size_t, POINTER(DatasetItem)]),
    ("sdlora_dataset_note", c_char_p, [handle, c_size_t]),
    # image.h
    ("sdlora_image_open", status, [out, handle, c_char_p]),
    ("sdlora_image_new", status, [out, handle, c_int32, c_int32, POINTER(c_uint8)]),
    ("sdlora_image_ref", handle, [handle]),
    ("sdlora_image_unref", None, [handle]),
    ("sdlora_image_width", c_int32, [handle]),
    ("sdlora_image_height", c_int32, [handle]),
    ("sdlora_image_data", c_void_p, [handle]),
    ("sdlora_image_text", c_char_p, [handle]),
    ("sdlora_image_keyword", c_char_p, [handle, c_size_t]),
    ("sdlora_image_keyword_text", c_char_p, [handle, c_char_p]),
    ("sdlora_image_with_text", status, [out, handle, c_char_p]),
    ("sdlora_image_read_text", status, [handle, c_char_p, POINTER(c_void_p)]),
    ("sdlora_image_save", status, [handle, c_char_p]),
    ("sdlora_image_save_as", status, [handle, c_char_p, c_int32]),
    ("sdlora_image_sheet", status, [out, handle, handles, c_size_t, c_size_t, POINTER(c_char_p),
                                    POINTER(c_char_p)]),
    # trainer.h
    ("sdlora_trainer_new", status, [out, handle, handle, handle, handle, handle, handle,
                                    progress_fn, c_void_p]),
    ("sdlora_trainer_ref", handle, [handle]),
    ("sdlora_trainer_unref", None, [handle]),
    ("sdlora_trainer_step", status, [handle, POINTER(Progress)]),
    ("sdlora_trainer_run", status, [handle]),
    ("sdlora_trainer_cancel", None, [handle]),
    ("sdlora_trainer_save", status, [handle, c_char_p]),
    ("sdlora_trainer_save_state", status, [handle, c_char_p]),
    ("sdlora_trainer_resume", status, [handle, c_char_p]),
    ("sdlora_trainer_validate", status, [handle, reals]),
    ("sdlora_trainer_network", handle, [handle]),
    ("sdlora_plan", status, [handle, handle, handle, handle, handle, handle, progress_fn, c_void_p,
                             POINTER(c_void_p)]),
    ("sdlora_evaluate", status, [handle, handle, handle, handles, reals, reals, c_size_t, handle,
                                 progress_fn, c_void_p, reals]),
    # sampler.h
    ("sdlora_generator_new", status, [out, handle, handle]),
    ("sdlora_generator_ref", handle, [handle]),
    ("sdlora_generator_unref", None, [handle]),
    ("sdlora_generator_add_embeddings", status, [handle, c_char_p]),
    ("sdlora_generator_add_lora_dir", status, [handle, c_char_p]),
    ("sdlora_generator_add_vae_dir", status, [handle, c_char_p]),
    ("sdlora_generator_add_upscaler_dir", status, [handle, c_char_p]),
    ("sdlora_generator_set_init_image", status, [handle, handle]),
    ("sdlora_generator_set_mask", status, [handle, handle]),
    ("sdlora_generator_set_network", status, [handle, handle, c_double, c_double]),
    ("sdlora_generator_set_refiner", status, [handle, handle]),
    ("sdlora_generator_set_hr_checkpoint", status, [handle, handle]),
    ("sdlora_generator_add_ckpt_dir", status, [handle, c_char_p]),
    ("sdlora_generator_set_progress", status, [handle, sample_fn, c_void_p]),
    ("sdlora_generator_set_watch", status, [handle, progress_fn, c_void_p]),
    ("sdlora_generator_preview", status, [out, handle]),
    ("sdlora_generator_match", status, [handle, handle, c_char_p, POINTER(c_void_p)]),
    ("sdlora_generator_run", status, [handle, handle, handles, c_size_t]),
    ("sdlora_generator_cancel", None, [handle]),
    ("sdlora_sampler_name", c_char_p, [c_size_t]),
    ("sdlora_scheduler_name", c_char_p, [c_size_t]),
    # grid.h
    ("sdlora_grid_new", status, [out, handle, handle, handle]),
    ("sdlora_grid_ref", handle, [handle]),
    ("sdlora_grid_unref", None, [handle]),
    ("sdlora_grid_set_models", status, [handle, grid_model_fn, c_void_p]),
    ("sdlora_grid_size", c_size_t, [handle, c_int]),
    ("sdlora_grid_label", c_char_p, [handle, c_int, c_size_t]),
    ("sdlora_grid_step", status, [handle]),
    ("sdlora_grid_run", status, [handle, progress_fn, c_void_p]),
    ("sdlora_grid_cancel", None, [handle]),
    ("sdlora_grid_cell", handle, [handle, c_size_t, c_size_t, c_size_t]),
    ("sdlora_grid_sheet", status, [out, handle, c_int64]),
    ("sdlora_grid_axis_name", c_char_p, [c_size_t]),
    # tools.h
    ("sdlora_file_convert", status, [handle, c_char_p, c_char_p, handle, progress_fn, c_void_p,
                                     POINTER(c_void_p)]),
    ("sdlora_file_prune", status, [handle, c_char_p, c_char_p, handle, progress_fn, c_void_p,
                                   POINTER(c_void_p)]),
    ("sdlora_file_hash", status, [handle, c_char_p, progress_fn, c_void_p, POINTER(c_void_p)]),
    ("sdlora_file_check", status, [handle, c_char_p, c_int, progress_fn, c_void_p,
                                   POINTER(c_void_p)]),
    ("sdlora_metadata_get", status, [handle, c_char_p, c_char_p, POINTER(c_void_p)]),
    ("sdlora_metadata_set", status, [handle, c_char_p, c_char_p, POINTER(c_char_p),
                                     POINTER(c_char_p), c_size_t, progress_fn, c_void_p]),
    ("sdlora_metadata_copy", status, [handle, c_char_p, c_char_p, c_char_p, c_char_p, progress_fn,
                                      c_void_p]),
    # merge.h
    ("sdlora_checkpoint_for_network", status, [out, handle, c_char_p]),
    ("sdlora_network_resize", status, [out, handle, handle, progress_fn, c_void_p]),
    ("sdlora_network_merge", status, [out, handles, reals, reals, c_size_t, handle, progress_fn,
                                      c_void_p]),
    ("sdlora_network_extract", status, [out, handle, handle, handle, progress_fn, c_void_p]),
    ("sdlora_checkpoint_merge_file", status, [handle, handle, handles, reals, reals, c_size_t,
                                              c_char_p, handle, progress_fn, c_void_p]),
    # bench.h
    ("sdlora_bench", status, [handle, handle, handle, progress_fn, c_void_p, POINTER(c_void_p)]),
]
