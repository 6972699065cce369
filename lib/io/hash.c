/* SPDX-License-Identifier: MIT */
/* SHA-256 over memory and ranges of files.  It knows which bytes of a file each customary digest
 * covers; the arithmetic is OpenSSL's, which uses the processor's SHA instructions. */
#include "io/hash.h"

#include <string.h>

#include <openssl/evp.h>

#include "base/status.h"
#include "base/thread.h"
#include "io/file.h"
#include "io/safetensors.h"

#define PIECE ((size_t)1 << 16) /* bytes read at once, on the stack */

enum { LEGACY_AT = 0x100000, LEGACY_BYTES = 0x10000, DIGEST = 32 };

struct slr_sha256 {
    slr_mem *m;
    EVP_MD_CTX *ctx;
};

static int openssl_failed(void)
{
    return slr_fail(SDLORA_ENOMEM, "slr_sha256", "OpenSSL could not compute a SHA-256");
}

int slr_sha256_new(slr_sha256 **out, slr_mem *m)
{
    slr_sha256 *s;
    slr_require(out);
    *out = NULL;
    s = slr_alloc(m, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->m = m;
    s->ctx = EVP_MD_CTX_new();
    if (!s->ctx || EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(s->ctx);
        slr_free(m, s);
        return openssl_failed();
    }
    *out = s;
    return SDLORA_OK;
}

int slr_sha256_add(slr_sha256 *s, const void *bytes, size_t n)
{
    return EVP_DigestUpdate(s->ctx, bytes, n) == 1 ? SDLORA_OK : openssl_failed();
}

int slr_sha256_hex(slr_sha256 **s, char hex[65])
{
    unsigned char sum[DIGEST];
    int ok;
    if (!s || !*s)
        return SDLORA_OK;
    ok = !hex || EVP_DigestFinal_ex((*s)->ctx, sum, NULL) == 1;
    EVP_MD_CTX_free((*s)->ctx);
    slr_free((*s)->m, *s);
    *s = NULL;
    if (!ok)
        return openssl_failed();
    for (int i = 0; hex && i < DIGEST; i++) {
        hex[2 * i] = "0123456789abcdef"[sum[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[sum[i] & 15];
    }
    if (hex)
        hex[2 * DIGEST] = '\0';
    return SDLORA_OK;
}

int slr_hash_bytes(const void *bytes, size_t n, char hex[65])
{
    slr_sha256 *s;
    int rc;
    SLR_TRY(slr_sha256_new(&s, NULL));
    rc = slr_sha256_add(s, bytes, n);
    if (rc < 0) {
        slr_sha256_hex(&s, NULL);
        return rc;
    }
    return slr_sha256_hex(&s, hex);
}

/* Bytes [lo, hi) of an open file. */
static int hash_range(int fd, const char *path, uint64_t lo, uint64_t hi, char hex[65])
{
    unsigned char piece[PIECE];
    slr_sha256 *s;
    int rc;
    SLR_TRY(slr_sha256_new(&s, NULL));
    for (rc = SDLORA_OK; lo < hi && rc == SDLORA_OK;) {
        size_t n = hi - lo < PIECE ? (size_t)(hi - lo) : PIECE;
        if (slr_canceled())
            rc = slr_fail(SDLORA_ECANCELED, __func__, "canceled");
        else
            rc = slr_file_fd_read(fd, path, lo, piece, n);
        if (rc == SDLORA_OK)
            rc = slr_sha256_add(s, piece, n);
        lo += n;
    }
    if (rc < 0) {
        slr_sha256_hex(&s, NULL);
        return rc;
    }
    return slr_sha256_hex(&s, hex);
}

int slr_hash_file(const char *path, char hex[65])
{
    uint64_t size;
    int fd, rc;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    rc = hash_range(fd, path, 0, size, hex);
    slr_file_fd_close(fd);
    return rc;
}

int slr_hash_legacy(const char *path, char hex[9])
{
    char all[65];
    uint64_t size, hi = LEGACY_AT + LEGACY_BYTES;
    int fd, rc;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    /* A file that ends before the window hashes as what is left of it, down to nothing. */
    rc = hash_range(fd, path, LEGACY_AT, size < hi ? size : hi, all);
    slr_file_fd_close(fd);
    SLR_TRY(rc);
    memcpy(hex, all, 8);
    hex[8] = '\0';
    return SDLORA_OK;
}

int slr_hash_tensors(const char *path, char hex[65])
{
    slr_safetensors *f;
    uint64_t size, start;
    int fd, rc;
    SLR_TRY(slr_safetensors_open(&f, NULL, path, false));
    start = slr_safetensors_data_start(f);
    slr_safetensors_close(f);
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    rc = hash_range(fd, path, start, size, hex);
    slr_file_fd_close(fd);
    return rc;
}
