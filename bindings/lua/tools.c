/* SPDX-License-Identifier: MIT */
/* Tools on whole files, as methods of a context.  Reports are JSON text. */
#include "box.h"

#include <lauxlib.h>

static int push_report(lua_State *L, sdlora_context *ctx, char *json)
{
    lua_pushstring(L, json);
    sdlora_text_free(ctx, json);
    return 1;
}

typedef int (*rewrite_fn)(sdlora_context *ctx, const char *in, const char *out,
                          const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                          char **json);

static int rewrite(lua_State *L, const char *kind, rewrite_fn run)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *in = luaL_checkstring(L, 2), *out = luaL_checkstring(L, 3);
    char *json = NULL;
    lua_settop(L, 4);
    sdlora_options *o = slua_to_options(L, 4, kind, NULL);
    slua_check(L, run(ctx, in, out, o, NULL, NULL, &json));
    return push_report(L, ctx, json);
}

/* ctx:convert(from, to, {options of kind "convert"}) */
int slua_convert(lua_State *L)
{
    return rewrite(L, "convert", sdlora_file_convert);
}

/* ctx:prune(from, to, {options of kind "prune"}) */
int slua_prune(lua_State *L)
{
    return rewrite(L, "prune", sdlora_file_prune);
}

/* ctx:hash(path) */
int slua_hash(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    char *json = NULL;
    slua_check(L, sdlora_file_hash(ctx, luaL_checkstring(L, 2), NULL, NULL, &json));
    return push_report(L, ctx, json);
}

/* ctx:check(path, each) */
int slua_check_file(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    char *json = NULL;
    slua_check(
        L, sdlora_file_check(ctx, luaL_checkstring(L, 2), lua_toboolean(L, 3), NULL, NULL, &json));
    return push_report(L, ctx, json);
}

/* ctx:metadata(path, key): all of it as JSON, or one value */
int slua_metadata(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    char *text = NULL;
    slua_check(L,
               sdlora_metadata_get(ctx, luaL_checkstring(L, 2), luaL_optstring(L, 3, NULL), &text));
    return push_report(L, ctx, text);
}

/* ctx:set_metadata(path, key, value or nil, out) */
int slua_set_metadata(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *path = luaL_checkstring(L, 2), *key = luaL_checkstring(L, 3);
    const char *value = luaL_optstring(L, 4, NULL), *out = luaL_optstring(L, 5, NULL);
    slua_check(L, sdlora_metadata_set(ctx, path, out, &key, &value, 1, NULL, NULL));
    return 0;
}

/* ctx:copy_metadata(from, path, prefix) */
int slua_copy_metadata(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *from = luaL_checkstring(L, 2), *path = luaL_checkstring(L, 3);
    slua_check(L,
               sdlora_metadata_copy(ctx, from, path, NULL, luaL_optstring(L, 4, NULL), NULL, NULL));
    return 0;
}
