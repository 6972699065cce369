/* SPDX-License-Identifier: MIT */
/* Log lines on their way to Lua.
 *
 * The library may log from any thread, and a Lua state belongs to one: lines are queued, and the
 * thread that calls into the module hands them out when a call tells progress or returns.  A C
 * context may outlive its handle, so what a log refers to stays until the state ends. */
#include "box.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct log;

typedef struct line {
    struct line *next;
    const struct log *to;
    int level;
    char text[];
} line;

typedef struct queue {
    pthread_mutex_t lock;
    line *first, **end;
} queue;

/* What the library gets as `user`. */
typedef struct log {
    queue *q;
    int callback; /* reference to the Lua function */
} log;

static const char key; /* its address names the queue in the registry */
static const char *const levels[] = {"error", "warn", "info", "debug", NULL}; /* SDLORA_LOG_* - 1 */

static line *take(queue *q)
{
    pthread_mutex_lock(&q->lock);
    line *l = q->first;
    if (l && !(q->first = l->next))
        q->end = &q->first;
    pthread_mutex_unlock(&q->lock);
    return l;
}

static void on_log(int level, const char *text, void *user)
{
    const log *to = user;
    queue *q = to->q;
    line *l = malloc(sizeof *l + strlen(text) + 1);
    if (!l)
        return;
    *l = (line){.to = to, .level = level};
    strcpy(l->text, text);
    pthread_mutex_lock(&q->lock);
    *q->end = l;
    q->end = &l->next;
    pthread_mutex_unlock(&q->lock);
}

/* Protected, as callbacks of jobs are. */
static int hand_out(lua_State *L)
{
    const line *l = lua_touserdata(L, 1);
    int last = (int)(sizeof levels / sizeof *levels) - 2, at = l->level - 1;
    lua_rawgeti(L, LUA_REGISTRYINDEX, l->to->callback);
    lua_pushstring(L, levels[at < 0 ? 0 : at > last ? last : at]);
    lua_pushstring(L, l->text);
    lua_call(L, 2, 0);
    return 0;
}

/* The error of a log function, on top of the stack: Lua's way for errors that have no caller. */
static void warn(lua_State *L)
{
#if LUA_VERSION_NUM >= 504
    lua_warning(L, "sdlora: error in a log function: ", 1);
    lua_warning(L, lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "not a text", 0);
#endif
    lua_pop(L, 1);
}

void slua_deliver(lua_State *L)
{
    line *l;
    if (!lua_checkstack(L, 8))
        return;
    lua_pushlightuserdata(L, (void *)&key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    queue *q = lua_touserdata(L, -1);
    lua_pop(L, 1);
    while (q && (l = take(q))) {
        lua_pushcfunction(L, hand_out);
        lua_pushlightuserdata(L, l);
        if (lua_pcall(L, 1, 0, 0))
            warn(L);
        free(l);
    }
}

static int drop_queue(lua_State *L)
{
    queue *q = lua_touserdata(L, 1);
    line *l;
    while ((l = take(q)))
        free(l);
    pthread_mutex_destroy(&q->lock);
    return 0;
}

/* Finalizers run from the youngest object to the oldest: the queue outlives all handles. */
void slua_open_log(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    int there = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (there)
        return;
    lua_pushlightuserdata(L, (void *)&key);
    queue *q = lua_newuserdata(L, sizeof *q);
    q->first = NULL;
    q->end = &q->first;
    pthread_mutex_init(&q->lock, NULL);
    lua_newtable(L);
    lua_pushcfunction(L, drop_queue);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

/* ctx:set_log(function(level, text) ... end, "info"); nil ends it */
int slua_context_set_log(lua_State *L)
{
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    if (lua_isnoneornil(L, 2)) {
        slua_check(L, sdlora_context_set_log(ctx, 0, NULL, NULL));
        return 0;
    }
    luaL_checktype(L, 2, LUA_TFUNCTION);
    int level = luaL_checkoption(L, 3, "info", levels) + 1;
    lua_settop(L, 2);
    log *to = lua_newuserdata(L, sizeof *to);
    lua_insert(L, 2);
    to->callback = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)&key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    to->q = lua_touserdata(L, -1);
    lua_pop(L, 1);
    luaL_ref(L, LUA_REGISTRYINDEX); /* `to`, as long as the state */
    slua_check(L, sdlora_context_set_log(ctx, level, on_log, to));
    return 0;
}
