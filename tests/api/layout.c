/* SPDX-License-Identifier: MIT */
/* The layout of public structs and the numbers of public enums on 64-bit machines: what programs
 * compiled against an older header rely on.  Members are only ever appended. */
#include <assert.h>
#include <stddef.h>

#include <sdlora/backend.h>
#include <sdlora/sdlora.h>

#define AT(type, member, offset)                                                                   \
    static_assert(offsetof(type, member) == (offset), #type "." #member " has moved")
#define SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " has another size")
#define IS(name, number)  static_assert((name) == (number), #name " has another number")

#if defined(__LP64__)
SIZE(sdlora_error, 24);
AT(sdlora_error, code, 0);
AT(sdlora_error, message, 8);
AT(sdlora_error, where, 16);

SIZE(sdlora_allocator, 32);
AT(sdlora_allocator, alloc, 0);
AT(sdlora_allocator, realloc, 8);
AT(sdlora_allocator, free, 16);
AT(sdlora_allocator, user, 24);

SIZE(sdlora_device_info, 128);
AT(sdlora_device_info, name, 8);
AT(sdlora_device_info, backend, 72);
AT(sdlora_device_info, mem_total, 104);
AT(sdlora_device_info, mem_free, 112);
AT(sdlora_device_info, host_memory, 120);
AT(sdlora_device_info, threads, 124);

SIZE(sdlora_option_info, 72);
AT(sdlora_option_info, kind, 8);
AT(sdlora_option_info, name, 16);
AT(sdlora_option_info, help, 24);
AT(sdlora_option_info, choices, 32);
AT(sdlora_option_info, default_text, 40);
AT(sdlora_option_info, min, 48);
AT(sdlora_option_info, max, 56);
AT(sdlora_option_info, type, 64);

SIZE(sdlora_dataset_item, 64);
AT(sdlora_dataset_item, path, 8);
AT(sdlora_dataset_item, caption, 16);
AT(sdlora_dataset_item, repeats, 24);
AT(sdlora_dataset_item, width, 32);
AT(sdlora_dataset_item, bucket_width, 40);
AT(sdlora_dataset_item, resized_width, 48);
AT(sdlora_dataset_item, crop_left, 56);
AT(sdlora_dataset_item, crop_top, 60);

SIZE(sdlora_progress, 136);
AT(sdlora_progress, step, 8);
AT(sdlora_progress, epochs, 32);
AT(sdlora_progress, loss, 40);
AT(sdlora_progress, val_loss, 80);
AT(sdlora_progress, eta, 96);
AT(sdlora_progress, phase, 104);
AT(sdlora_progress, phase_done, 112);
AT(sdlora_progress, phase_total, 120);
AT(sdlora_progress, text_encoder_2_lr, 128);

SIZE(sdlora_tdesc, 104);
AT(sdlora_tdesc, dim, 8);
AT(sdlora_tdesc, stride, 56);
SIZE(sdlora_const, 16);
SIZE(sdlora_arg, 16);
SIZE(sdlora_opdesc, 72);
AT(sdlora_opdesc, in, 32);
AT(sdlora_opdesc, consts, 64);
SIZE(sdlora_host, 80);
AT(sdlora_host, alloc, 16);
AT(sdlora_host, parallel, 48);
AT(sdlora_host, cpu_features, 64);
AT(sdlora_host, canceled, 72);
SIZE(sdlora_dev_info, 120);
AT(sdlora_dev_info, name, 56);
SIZE(sdlora_backend, 128);
AT(sdlora_backend, dev_count, 16);
AT(sdlora_backend, prepare, 104);
AT(sdlora_backend, kernel_free, 120);
#endif

IS(SDLORA_OK, 0);
IS(SDLORA_DONE, 1);
IS(SDLORA_ERROR, -1);
IS(SDLORA_ENOMEM, -2);
IS(SDLORA_EINVAL, -3);
IS(SDLORA_ENOTSUP, -4);
IS(SDLORA_EIO, -5);
IS(SDLORA_EFORMAT, -6);
IS(SDLORA_ENOTFOUND, -7);
IS(SDLORA_ECANCELED, -8);
IS(SDLORA_EBACKEND, -9);
IS(SDLORA_EVERSION, -10);
IS(SDLORA_ENAN, -11);
IS(SDLORA_LOG_ERROR, 1);
IS(SDLORA_LOG_DEBUG, 4);
IS(SDLORA_OPTION_INT, 1);
IS(SDLORA_OPTION_REAL, 2);
IS(SDLORA_OPTION_TEXT, 3);
IS(SDLORA_OPTION_BOOL, 4);
IS(SDLORA_OPTION_LIST, 5);
IS(SDLORA_BACKEND_ABI, 1);
IS(SDLORA_OP_LOSS, 90);
IS(SDLORA_OP_ADAMW, 100);

int main(void)
{
    return 0;
}
