/* SPDX-License-Identifier: MIT */
/* Methods of contexts, checkpoints, VAEs, networks and data sets. */
#include "box.h"

static int context_new(lua_State *L)
{
    sdlora_context *ctx = NULL;
    sdlora_options *o = slua_to_options(L, 1, "context", NULL);
    box *b = slua_new_box(L, CONTEXT);
    slua_check(L, sdlora_context_new(&ctx, o, NULL));
    b->p = ctx;
    return 1;
}

static int context_devices(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    size_t n = sdlora_context_device_count(ctx);
    lua_newtable(L);
    for (size_t i = 0; i < n; i++) {
        sdlora_device_info d = {.struct_size = sizeof d};
        slua_check(L, sdlora_context_device_info(ctx, i, &d));
        lua_newtable(L);
        slua_set_text(L, "name", d.name);
        slua_set_text(L, "backend", d.backend);
        slua_set_number(L, "mem_total", (double)d.mem_total);
        slua_set_number(L, "mem_free", (double)d.mem_free);
        slua_set_integer(L, "threads", d.threads);
        lua_pushboolean(L, d.host_memory);
        lua_setfield(L, -2, "host_memory");
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int context_device_notes(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *note;
    lua_newtable(L);
    for (int i = 0; (note = sdlora_context_device_note(ctx, (size_t)i)) != NULL; i++) {
        lua_pushstring(L, note);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int context_memory_used(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)sdlora_context_memory_used(slua_to(L, 1, CONTEXT)));
    return 1;
}

static int context_memory_peak(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)sdlora_context_memory_peak(slua_to(L, 1, CONTEXT)));
    return 1;
}

static int context_tokenize(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *text = luaL_checkstring(L, 2);
    size_t n = 0;
    slua_check(L, sdlora_tokenize(ctx, text, NULL, 0, &n));
    int32_t *ids = lua_newuserdata(L, n * sizeof *ids + 1);
    slua_check(L, sdlora_tokenize(ctx, text, ids, n, &n));
    lua_newtable(L);
    for (size_t i = 0; i < n; i++) {
        lua_pushinteger(L, ids[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* Pushes a copy of the library's text and gives the text back. */
static int push_json(lua_State *L, sdlora_context *ctx, char *json)
{
    lua_pushstring(L, json);
    sdlora_text_free(ctx, json);
    return 1;
}

static int context_file_info(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    char *json = NULL;
    slua_check(L, sdlora_file_info(ctx, luaL_checkstring(L, 2), lua_toboolean(L, 3), &json));
    return push_json(L, ctx, json);
}

static int checkpoint_new(lua_State *L)
{
    sdlora_checkpoint *ckpt = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *path = luaL_checkstring(L, 2);
    sdlora_options *o = slua_to_options(L, 3, "checkpoint", NULL);
    box *b = slua_new_box(L, CHECKPOINT);
    slua_check(L, sdlora_checkpoint_open(&ckpt, ctx, path, o));
    b->p = ckpt;
    return 1;
}

static int checkpoint_family(lua_State *L)
{
    lua_pushstring(L, sdlora_checkpoint_family(slua_to(L, 1, CHECKPOINT)));
    return 1;
}

static int checkpoint_layout(lua_State *L)
{
    lua_pushstring(L, sdlora_checkpoint_layout(slua_to(L, 1, CHECKPOINT)));
    return 1;
}

static int checkpoint_path(lua_State *L)
{
    lua_pushstring(L, sdlora_checkpoint_path(slua_to(L, 1, CHECKPOINT)));
    return 1;
}

strengths slua_to_strengths(lua_State *L, int i)
{
    strengths s = {0};
    if (lua_isnoneornil(L, i))
        return s;
    luaL_checktype(L, i, LUA_TTABLE);
    s.n = lua_rawlen(L, i);
    if (!s.n)
        return s;
    s.nets = lua_newuserdata(L, s.n * sizeof *s.nets);
    s.te = lua_newuserdata(L, 2 * s.n * sizeof *s.te);
    s.unet = s.te + s.n;
    for (size_t k = 0; k < s.n; k++) {
        lua_rawgeti(L, i, (int)k + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        int row = lua_gettop(L);
        for (int column = 1; column <= 3; column++)
            lua_rawgeti(L, row, column);
        s.nets[k] = slua_to(L, row + 1, NETWORK);
        s.te[k] = luaL_optnumber(L, row + 2, 1);
        s.unet[k] = luaL_optnumber(L, row + 3, 1);
        lua_settop(L, row - 1);
    }
    return s;
}

static int checkpoint_merge(lua_State *L)
{
    sdlora_checkpoint *merged = NULL, *ckpt = slua_to(L, 1, CHECKPOINT);
    strengths s = slua_to_strengths(L, 2);
    box *b = slua_new_box(L, CHECKPOINT);
    slua_check(L, sdlora_checkpoint_merge(&merged, ckpt, s.nets, s.te, s.unet, s.n));
    b->p = merged;
    return 1;
}

static int vae_new(lua_State *L)
{
    sdlora_vae *vae = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *path = luaL_checkstring(L, 2);
    box *b = slua_new_box(L, VAE);
    slua_check(L, sdlora_vae_open(&vae, ctx, path));
    b->p = vae;
    return 1;
}

static int network_new(lua_State *L)
{
    sdlora_network *net = NULL;
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    lua_Integer seed = luaL_optinteger(L, 3, 0);
    luaL_argcheck(L, seed >= 0, 3, "a seed is not negative");
    sdlora_options *o = slua_to_options(L, 2, "network", NULL);
    box *b = slua_new_box(L, NETWORK);
    slua_check(L, sdlora_network_new(&net, ckpt, o, (uint64_t)seed));
    b->p = net;
    return 1;
}

static int network_open(lua_State *L)
{
    sdlora_network *net = NULL;
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    const char *path = luaL_checkstring(L, 2);
    sdlora_options *o = slua_to_options(L, 3, "network", NULL);
    box *b = slua_new_box(L, NETWORK);
    slua_check(L, sdlora_network_open_with(&net, ckpt, path, o));
    b->p = net;
    return 1;
}

static int network_skipped(lua_State *L)
{
    const sdlora_network *net = slua_to(L, 1, NETWORK);
    lua_newtable(L);
    for (size_t i = 0; i < sdlora_network_skipped(net); i++) {
        lua_pushstring(L, sdlora_network_skipped_key(net, i));
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int network_name(lua_State *L)
{
    lua_pushstring(L, sdlora_network_name(slua_to(L, 1, NETWORK)));
    return 1;
}

static int network_modules(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sdlora_network_modules(slua_to(L, 1, NETWORK)));
    return 1;
}

static int network_metadata(lua_State *L)
{
    lua_pushstring(L, sdlora_network_metadata(slua_to(L, 1, NETWORK), luaL_checkstring(L, 2)));
    return 1;
}

static int network_save(lua_State *L)
{
    sdlora_network *net = slua_to(L, 1, NETWORK);
    slua_check(L, sdlora_network_save_as(net, luaL_checkstring(L, 2), luaL_optstring(L, 3, NULL),
                                         luaL_optstring(L, 4, NULL)));
    return 0;
}

static int dataset_new(lua_State *L)
{
    sdlora_dataset *data = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    sdlora_options *o = slua_to_options(L, 2, "dataset", NULL);
    box *b = slua_new_box(L, DATASET);
    slua_check(L, sdlora_dataset_open(&data, ctx, o));
    b->p = data;
    return 1;
}

static int dataset_images(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sdlora_dataset_images(slua_to(L, 1, DATASET)));
    return 1;
}

static int dataset_views(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sdlora_dataset_views(slua_to(L, 1, DATASET)));
    return 1;
}

static int dataset_batches_per_epoch(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sdlora_dataset_batches_per_epoch(slua_to(L, 1, DATASET)));
    return 1;
}

static int dataset_notes(lua_State *L)
{
    sdlora_dataset *data = slua_to(L, 1, DATASET);
    const char *note;
    lua_newtable(L);
    for (int i = 0; (note = sdlora_dataset_note(data, (size_t)i)) != NULL; i++) {
        lua_pushstring(L, note);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int dataset_item(lua_State *L)
{
    sdlora_dataset_item item = {.struct_size = sizeof item};
    sdlora_dataset *data = slua_to(L, 1, DATASET);
    lua_Integer i = luaL_checkinteger(L, 2); /* from 1, as in Lua's lists */
    luaL_argcheck(L, i >= 1 && (size_t)i <= sdlora_dataset_images(data), 2, "no such picture");
    slua_check(L, sdlora_dataset_item_at(data, (size_t)i - 1, &item));
    lua_newtable(L);
    slua_set_text(L, "path", item.path);
    slua_set_text(L, "caption", item.caption);
    slua_set_integer(L, "repeats", item.repeats);
    slua_set_integer(L, "width", item.width);
    slua_set_integer(L, "height", item.height);
    slua_set_integer(L, "bucket_width", item.bucket_width);
    slua_set_integer(L, "bucket_height", item.bucket_height);
    slua_set_integer(L, "resized_width", item.resized_width);
    slua_set_integer(L, "resized_height", item.resized_height);
    slua_set_integer(L, "crop_left", item.crop_left);
    slua_set_integer(L, "crop_top", item.crop_top);
    return 1;
}

const luaL_Reg slua_context_methods[] = {{"devices", context_devices},
                                         {"device_notes", context_device_notes},
                                         {"memory_used", context_memory_used},
                                         {"memory_peak", context_memory_peak},
                                         {"convert", slua_convert},
                                         {"prune", slua_prune},
                                         {"hash", slua_hash},
                                         {"check", slua_check_file},
                                         {"metadata", slua_metadata},
                                         {"set_metadata", slua_set_metadata},
                                         {"copy_metadata", slua_copy_metadata},
                                         {"tokenize", context_tokenize},
                                         {"file_info", context_file_info},
                                         {"set_log", slua_context_set_log},
                                         {NULL, NULL}};

const luaL_Reg slua_checkpoint_methods[] = {
    {"family", checkpoint_family}, {"layout", checkpoint_layout},    {"path", checkpoint_path},
    {"merge", checkpoint_merge},   {"bench", slua_checkpoint_bench}, {NULL, NULL}};

const luaL_Reg slua_vae_methods[] = {{NULL, NULL}};

const luaL_Reg slua_network_methods[] = {
    {"name", network_name}, {"modules", network_modules}, {"metadata", network_metadata},
    {"save", network_save}, {"skipped", network_skipped}, {NULL, NULL}};

const luaL_Reg slua_dataset_methods[] = {{"__len", dataset_images},
                                         {"images", dataset_images},
                                         {"views", dataset_views},
                                         {"batches_per_epoch", dataset_batches_per_epoch},
                                         {"item", dataset_item},
                                         {"notes", dataset_notes},
                                         {NULL, NULL}};

const luaL_Reg slua_handle_functions[] = {{"Context", context_new},
                                          {"Checkpoint", checkpoint_new},
                                          {"Vae", vae_new},
                                          {"Network", network_new},
                                          {"open_network", network_open},
                                          {"Dataset", dataset_new},
                                          {NULL, NULL}};
