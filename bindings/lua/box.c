/* SPDX-License-Identifier: MIT */
/* Handles, errors and options: what all methods of the Lua module stand on.  Knows Lua and the
 * public headers; refuses to know option names, which go to the library as they are. */
#include "box.h"

#include <string.h>

static const char *code_name(int code)
{
    static const char *const names[] = {"OK",        "ERROR",    "ENOMEM",   "EINVAL",
                                        "ENOTSUP",   "EIO",      "EFORMAT",  "ENOTFOUND",
                                        "ECANCELED", "EBACKEND", "EVERSION", "ENAN"};
    size_t i = (size_t)-code;
    return code <= 0 && i < sizeof names / sizeof *names ? names[i] : "ERROR";
}

int slua_check(lua_State *L, int rc)
{
    if (rc < 0) /* before a log function makes calls of its own */
        lua_pushfstring(L, "%s (%d): %s", code_name(rc), rc, sdlora_last_error()->message);
    slua_deliver(L);
    return rc < 0 ? lua_error(L) : rc;
}

box *slua_new_box(lua_State *L, int kind)
{
    box *b = lua_newuserdata(L, sizeof *b);
    *b = (box){.drop = slua_classes[kind].drop, .callback = LUA_NOREF};
    luaL_getmetatable(L, slua_classes[kind].name);
    lua_setmetatable(L, -2);
    return b;
}

box *slua_to_box(lua_State *L, int i, int kind)
{
    box *b = luaL_checkudata(L, i, slua_classes[kind].name);
    if (!b->p)
        luaL_argerror(L, i, "this handle is closed");
    return b;
}

void *slua_to(lua_State *L, int i, int kind)
{
    return slua_to_box(L, i, kind)->p;
}

/* The handle at 1, whatever its class; an error for anything else. */
static box *any_box(lua_State *L)
{
    box *b = lua_touserdata(L, 1);
    if (!b || !lua_getmetatable(L, 1))
        luaL_argerror(L, 1, "not a handle of sdlora");
    for (int i = 0; i < N_CLASSES; i++) {
        luaL_getmetatable(L, slua_classes[i].name);
        if (lua_rawequal(L, -1, -2))
            return b;
        lua_pop(L, 1);
    }
    luaL_argerror(L, 1, "not a handle of sdlora");
    return NULL;
}

int slua_close(lua_State *L)
{
    box *b = any_box(L);
    void *p = b->p;
    if (b->L)
        return luaL_error(L, "a job is running: cancel it first");
    b->p = NULL;
    luaL_unref(L, LUA_REGISTRYINDEX, b->callback);
    b->callback = LUA_NOREF;
    if (p)
        b->drop(p);
    return 0;
}

/* --- options --- */

/* Replaces the list on top of the stack by text with one item per line. */
static void join(lua_State *L)
{
    luaL_Buffer out;
    int list = lua_gettop(L), n = (int)lua_rawlen(L, list);
    luaL_buffinit(L, &out);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&out, '\n');
        lua_rawgeti(L, list, i);
        if (!lua_isstring(L, -1))
            luaL_error(L, "item %d of a list is a %s, not text", i, luaL_typename(L, -1));
        luaL_addvalue(&out);
    }
    luaL_pushresult(&out);
    lua_replace(L, list);
}

/* Sets one option from the value on top of the stack. */
static void set_option(lua_State *L, sdlora_options *o, const char *name)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        slua_check(L, sdlora_options_set_text(o, name, lua_toboolean(L, -1) ? "true" : "false"));
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            slua_check(L, sdlora_options_set_int(o, name, (int64_t)lua_tointeger(L, -1)));
        else
            slua_check(L, sdlora_options_set_real(o, name, (double)lua_tonumber(L, -1)));
        break;
    case LUA_TTABLE:
        lua_pushvalue(L, -1);
        join(L);
        slua_check(L, sdlora_options_set_text(o, name, lua_tostring(L, -1)));
        lua_pop(L, 1);
        break;
    case LUA_TSTRING:
        slua_check(L, sdlora_options_set_text(o, name, lua_tostring(L, -1)));
        break;
    default:
        luaL_error(L, "option %s: a %s is no value", name, luaL_typename(L, -1));
    }
}

sdlora_options *slua_to_options(lua_State *L, int i, const char *kind, const char *const *others)
{
    if (lua_gettop(L) < i)
        lua_settop(L, i);     /* what is pushed must not take the place of a missing table */
    if (lua_isuserdata(L, i)) /* options made before; their kind is looked at where they are used */
        return slua_to(L, i, OPTIONS);
    box *b = slua_new_box(L, OPTIONS);
    sdlora_options *o = NULL;
    slua_check(L, sdlora_options_new(&o, kind));
    b->p = o;
    if (lua_isnoneornil(L, i))
        return o;
    luaL_checktype(L, i, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
        int ours = 0;
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "options are name = value, but a key is a %s", luaL_typename(L, -2));
        for (const char *const *other = others; other && *other; other++)
            ours |= !strcmp(*other, lua_tostring(L, -2));
        if (!ours)
            set_option(L, o, lua_tostring(L, -2));
    }
    return o;
}

int slua_field(lua_State *L, int i, const char *name)
{
    if (!lua_istable(L, i)) {
        lua_pushnil(L);
        return LUA_TNIL;
    }
    lua_getfield(L, i, name);
    return lua_type(L, -1);
}

void *slua_field_handle(lua_State *L, int i, const char *name, int kind)
{
    return slua_field(L, i, name) == LUA_TNIL ? NULL : slua_to(L, lua_gettop(L), kind);
}

static int options_new(lua_State *L)
{
    slua_to_options(L, 2, luaL_checkstring(L, 1), NULL);
    return 1;
}

static int options_set(lua_State *L)
{
    sdlora_options *o = slua_to(L, 1, OPTIONS);
    lua_settop(L, 3);
    set_option(L, o, luaL_checkstring(L, 2));
    return 0;
}

static int options_get(lua_State *L)
{
    const char *text = NULL;
    slua_check(L, sdlora_options_get_text(slua_to(L, 1, OPTIONS), luaL_checkstring(L, 2), &text));
    lua_pushstring(L, text); /* NULL becomes nil */
    return 1;
}

/* options:from_infotext(ctx, text): what a picture's parameters tell; returns notes as one text. */
static int options_from_infotext(lua_State *L)
{
    sdlora_options *o = slua_to(L, 1, OPTIONS);
    sdlora_context *ctx = slua_to(L, 2, CONTEXT);
    char *notes = NULL;
    slua_check(L, sdlora_options_from_infotext(o, ctx, luaL_checkstring(L, 3), &notes));
    lua_pushstring(L, notes);
    sdlora_text_free(ctx, notes);
    return 1;
}

static int options_kind(lua_State *L)
{
    lua_pushstring(L, sdlora_options_kind(slua_to(L, 1, OPTIONS)));
    return 1;
}

void slua_set_text(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

void slua_set_number(lua_State *L, const char *name, double value)
{
    lua_pushnumber(L, (lua_Number)value);
    lua_setfield(L, -2, name);
}

void slua_set_integer(lua_State *L, const char *name, int64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

static int option_rows(lua_State *L)
{
    static const char *const types[] = {"text", "int", "real", "text", "bool", "list"};
    const char *kind = luaL_optstring(L, 1, NULL);
    sdlora_option_info row = {.struct_size = sizeof row};
    size_t n = 0;
    int rc;
    lua_newtable(L);
    while ((rc = sdlora_option_at(kind, n, &row)) == SDLORA_OK) {
        lua_newtable(L);
        slua_set_text(L, "kind", row.kind);
        slua_set_text(L, "name", row.name);
        slua_set_text(L, "help", row.help);
        slua_set_text(L, "choices", row.choices);
        slua_set_text(L, "default", row.default_text);
        slua_set_text(L, "type", types[row.type >= 1 && row.type <= 5 ? row.type : 0]);
        slua_set_number(L, "min", row.min);
        slua_set_number(L, "max", row.max);
        lua_rawseti(L, -2, (int)++n);
    }
    return n ? 1 : slua_check(L, rc); /* none at all: the kind is unknown */
}

const luaL_Reg slua_options_methods[] = {{"set", options_set},
                                         {"get", options_get},
                                         {"kind", options_kind},
                                         {"from_infotext", options_from_infotext},
                                         {NULL, NULL}};
const luaL_Reg slua_option_functions[] = {
    {"Options", options_new}, {"option_rows", option_rows}, {NULL, NULL}};
