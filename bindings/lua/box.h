/* SPDX-License-Identifier: MIT */
/* What the files of the Lua module share: handles as userdata, errors, options from tables.
 * Written for Lua 5.4; uses only what 5.1 to 5.3 have too. */
#ifndef SLUA_BOX_H
#define SLUA_BOX_H

#include <lauxlib.h>
#include <lua.h>

#include <sdlora/sdlora.h>

#if LUA_VERSION_NUM < 502
#define lua_rawlen                lua_objlen
#define luaL_setfuncs(L, regs, n) luaL_register(L, NULL, regs)
#endif
#if LUA_VERSION_NUM < 503
#define lua_isinteger(L, i) 0 /* one kind of number: the library sorts them out by option */
#endif

enum { CONTEXT, OPTIONS, CHECKPOINT, VAE, NETWORK, DATASET, IMAGE, TRAINER, GENERATOR, N_CLASSES };

typedef struct class
{
    const char *name; /* of the metatable */
    void (*drop)(void *);
    const luaL_Reg *methods;
} class;
extern const class slua_classes[N_CLASSES];

/* Methods of the classes, and plain functions of the module; each ends in {NULL, NULL}. */
extern const luaL_Reg slua_context_methods[], slua_options_methods[], slua_checkpoint_methods[],
    slua_vae_methods[], slua_network_methods[], slua_dataset_methods[], slua_image_methods[],
    slua_trainer_methods[], slua_generator_methods[];
extern const luaL_Reg slua_option_functions[], slua_handle_functions[], slua_image_functions[],
    slua_job_functions[];

int slua_checkpoint_bench(lua_State *L); /* a long job: with the others in jobs.c */

/* Methods of a context that work on files (tools.c). */
int slua_convert(lua_State *L);
int slua_prune(lua_State *L);
int slua_hash(lua_State *L);
int slua_check_file(lua_State *L);
int slua_metadata(lua_State *L);
int slua_set_metadata(lua_State *L);
int slua_copy_metadata(lua_State *L);

/* What every handle is in Lua. */
typedef struct box {
    void *p;              /* one reference; NULL once closed */
    void (*drop)(void *); /* gives it back */
    lua_State *L;         /* the coroutine whose job is running: callbacks run on it; else NULL */
    int callback;         /* reference to a Lua function, or LUA_NOREF */
    int failed;           /* the callback raised an error, which lies on top of L's stack */
} box;

/* Raises the last failure when rc is one, as text "ENAME (code): sentence"; else gives rc back. */
int slua_check(lua_State *L, int rc);

/* Log lines (log.c) wait until Lua runs anyway: slua_check and progress hand them out.  Never
 * raises: an error of the function that gets them becomes a warning. */
void slua_open_log(lua_State *L); /* once for a state, before any handle */
void slua_deliver(lua_State *L);
int slua_context_set_log(lua_State *L);

/* An empty handle on top of the stack.  It is pushed before the call that fills it, so that no
 * error of Lua's can lose a reference. */
box *slua_new_box(lua_State *L, int kind);
box *slua_to_box(lua_State *L, int i, int kind);
void *slua_to(lua_State *L, int i, int kind);
int slua_close(lua_State *L);

/* Pushes an options handle made from the table at i (or nothing), without the keys in `others`
 * (NULL: none), which are arguments of our own.  Lives as long as it is on the stack. */
sdlora_options *slua_to_options(lua_State *L, int i, const char *kind, const char *const *others);
/* Pushes a field of an options table that may be missing; gives its type. */
int slua_field(lua_State *L, int i, const char *name);
/* The handle in such a field, or NULL; leaves it on the stack. */
void *slua_field_handle(lua_State *L, int i, const char *name, int kind);

/* Setters of the table on top of the stack.  NULL text leaves the field nil. */
void slua_set_text(lua_State *L, const char *name, const char *value);
void slua_set_number(lua_State *L, const char *name, double value);
void slua_set_integer(lua_State *L, const char *name, int64_t value);

/* {{network, te, unet}, ...} as parallel arrays in memory that Lua collects. */
typedef struct strengths {
    sdlora_network **nets;
    double *te, *unet;
    size_t n;
} strengths;
strengths slua_to_strengths(lua_State *L, int i);

#endif
