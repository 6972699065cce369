/* SPDX-License-Identifier: MIT */
/* Methods of pictures. */
#include "box.h"

static int image_new(lua_State *L)
{
    sdlora_image *img = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    lua_Integer w = luaL_checkinteger(L, 2), h = luaL_checkinteger(L, 3);
    size_t bytes;
    const char *rgb = luaL_checklstring(L, 4, &bytes);
    luaL_argcheck(L, w > 0 && w <= INT32_MAX, 2, "no width");
    luaL_argcheck(L, h > 0 && h <= INT32_MAX, 3, "no height");
    luaL_argcheck(
        L, bytes % 3 == 0 && bytes / 3 % (size_t)w == 0 && bytes / 3 / (size_t)w == (size_t)h, 4,
        "not width * height * 3 bytes");
    box *b = slua_new_box(L, IMAGE);
    slua_check(L, sdlora_image_new(&img, ctx, (int32_t)w, (int32_t)h, (const uint8_t *)rgb));
    b->p = img;
    return 1;
}

static int image_open(lua_State *L)
{
    sdlora_image *img = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *path = luaL_checkstring(L, 2);
    box *b = slua_new_box(L, IMAGE);
    slua_check(L, sdlora_image_open(&img, ctx, path));
    b->p = img;
    return 1;
}

static int image_width(lua_State *L)
{
    lua_pushinteger(L, sdlora_image_width(slua_to(L, 1, IMAGE)));
    return 1;
}

static int image_height(lua_State *L)
{
    lua_pushinteger(L, sdlora_image_height(slua_to(L, 1, IMAGE)));
    return 1;
}

static int image_text(lua_State *L)
{
    lua_pushstring(L, sdlora_image_text(slua_to(L, 1, IMAGE)));
    return 1;
}

static int image_data(lua_State *L)
{
    sdlora_image *img = slua_to(L, 1, IMAGE);
    size_t pixels = (size_t)sdlora_image_width(img) * (size_t)sdlora_image_height(img);
    lua_pushlstring(L, (const char *)sdlora_image_data(img), pixels * 3);
    return 1;
}

static int image_save(lua_State *L)
{
    lua_Integer quality = luaL_optinteger(L, 3, SDLORA_QUALITY_DEFAULT);
    luaL_argcheck(L, quality >= 0 && quality <= SDLORA_QUALITY_LOSSLESS, 3, "no quality");
    slua_check(
        L, sdlora_image_save_as(slua_to(L, 1, IMAGE), luaL_checkstring(L, 2), (int32_t)quality));
    return 0;
}

/* Further texts of the file, by keyword. */
static int image_texts(lua_State *L)
{
    const sdlora_image *img = slua_to(L, 1, IMAGE);
    const char *keyword;
    lua_newtable(L);
    for (size_t i = 0; (keyword = sdlora_image_keyword(img, i)); i++)
        slua_set_text(L, keyword, sdlora_image_keyword_text(img, keyword));
    return 1;
}

static int image_with_text(lua_State *L)
{
    sdlora_image *copy = NULL;
    const sdlora_image *img = slua_to(L, 1, IMAGE);
    const char *text = luaL_optstring(L, 2, NULL);
    box *b = slua_new_box(L, IMAGE);
    slua_check(L, sdlora_image_with_text(&copy, img, text));
    b->p = copy;
    return 1;
}

/* read_text(ctx, path): the parameters of a picture, or what a .txt file holds. */
static int image_read_text(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    char *text = NULL;
    slua_check(L, sdlora_image_read_text(ctx, luaL_checkstring(L, 2), &text));
    lua_pushstring(L, text);
    sdlora_text_free(ctx, text);
    return 1;
}

/* A list of `n` texts in memory that Lua collects; the texts live in the list. */
static const char **to_labels(lua_State *L, int i, size_t n)
{
    if (lua_isnoneornil(L, i))
        return NULL;
    luaL_checktype(L, i, LUA_TTABLE);
    luaL_argcheck(L, lua_rawlen(L, i) == n, i, "not as many labels as rows or columns");
    const char **labels = lua_newuserdata(L, n * sizeof *labels + 1);
    for (size_t k = 0; k < n; k++) {
        lua_rawgeti(L, i, (int)k + 1);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, i, "a label is not text");
        labels[k] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return labels;
}

/* sheet(ctx, {{image, ...}, ...}, row_labels, column_labels) */
static int image_sheet(lua_State *L)
{
    sdlora_image *img = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 4);
    size_t rows = lua_rawlen(L, 2), columns = 0;
    lua_rawgeti(L, 2, 1);
    if (lua_istable(L, -1))
        columns = lua_rawlen(L, -1);
    luaL_argcheck(L, rows && columns, 2, "no pictures");
    sdlora_image **cells = lua_newuserdata(L, rows * columns * sizeof *cells);
    for (size_t r = 0; r < rows; r++) {
        lua_rawgeti(L, 2, (int)r + 1);
        luaL_argcheck(L, lua_istable(L, -1) && lua_rawlen(L, -1) == columns, 2,
                      "rows of different lengths");
        for (size_t c = 0; c < columns; c++) {
            lua_rawgeti(L, -1, (int)c + 1);
            cells[r * columns + c] = slua_to(L, lua_gettop(L), IMAGE);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    const char **row_labels = to_labels(L, 3, rows), **column_labels = to_labels(L, 4, columns);
    box *b = slua_new_box(L, IMAGE);
    slua_check(L, sdlora_image_sheet(&img, ctx, cells, rows, columns, row_labels, column_labels));
    b->p = img;
    return 1;
}

const luaL_Reg slua_image_methods[] = {{"width", image_width},         {"height", image_height},
                                       {"text", image_text},           {"data", image_data},
                                       {"save", image_save},           {"texts", image_texts},
                                       {"with_text", image_with_text}, {NULL, NULL}};

const luaL_Reg slua_image_functions[] = {{"Image", image_new},
                                         {"open_image", image_open},
                                         {"sheet", image_sheet},
                                         {"read_text", image_read_text},
                                         {NULL, NULL}};
