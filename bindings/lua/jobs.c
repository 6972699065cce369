/* SPDX-License-Identifier: MIT */
/* Methods of trainers and generators, and other jobs: long calls with callbacks.
 *
 * An error in a callback never crosses the library: it is kept on the Lua stack, the job is
 * cancelled, and it is raised when the call has returned. */
#include "box.h"

#include <string.h>

/* Begins a call into the job of handle 1; inside its own callbacks that is refused. */
static box *begin(lua_State *L, int kind)
{
    box *b = slua_to_box(L, 1, kind);
    if (b->L)
        luaL_error(L, "a job of this handle is running already");
    b->L = L;
    return b;
}

/* Ends it: an error of the callback goes before what the library made of it. */
static int end(lua_State *L, box *b, int rc)
{
    b->L = NULL;
    if (b->failed) {
        b->failed = 0;
        slua_deliver(L);
        return lua_error(L);
    }
    return slua_check(L, rc);
}

/* Keeps the function of field "progress" in the box. */
static void take_callback(lua_State *L, int i, box *b)
{
    if (slua_field(L, i, "progress") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TFUNCTION);
    b->callback = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void push_progress(lua_State *L, const sdlora_progress *p)
{
    lua_newtable(L);
    slua_set_integer(L, "step", p->step);
    slua_set_integer(L, "total", p->total);
    slua_set_integer(L, "epoch", p->epoch);
    slua_set_integer(L, "epochs", p->epochs);
    slua_set_number(L, "loss", p->loss);
    slua_set_number(L, "average_loss", p->average_loss);
    slua_set_number(L, "unet_lr", p->unet_lr);
    slua_set_number(L, "text_encoder_lr", p->text_encoder_lr);
    slua_set_number(L, "grad_norm", p->grad_norm);
    slua_set_number(L, "val_loss", p->val_loss);
    slua_set_number(L, "elapsed", p->elapsed);
    slua_set_number(L, "eta", p->eta);
    slua_set_text(L, "phase", p->phase);
    slua_set_integer(L, "phase_done", p->phase_done);
    slua_set_integer(L, "phase_total", p->phase_total);
    slua_set_number(L, "text_encoder_2_lr", p->text_encoder_2_lr);
}

/* What one callback tells; passed through lua_pcall as light userdata. */
typedef struct tidings {
    const box *b;
    const sdlora_progress *now; /* of a trainer; else step and total */
    int64_t step, total;
} tidings;

/* Protected: whatever goes wrong here, memory too, stays on this side of the library. */
static int tell(lua_State *L)
{
    const tidings *t = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->b->callback);
    if (t->now) {
        push_progress(L, t->now);
        lua_call(L, 1, 1);
    } else {
        lua_pushinteger(L, (lua_Integer)t->step);
        lua_pushinteger(L, (lua_Integer)t->total);
        lua_call(L, 2, 1);
    }
    return 1;
}

/* Calls the Lua function; non-zero cancels the job. */
static int pass_on(box *b, tidings *t)
{
    lua_State *L = b->L;
    if (!L || b->failed)
        return b->failed;
    slua_deliver(L);
    if (b->callback == LUA_NOREF)
        return 0;
    if (!lua_checkstack(L, 8))
        return 1;
    lua_pushcfunction(L, tell);
    lua_pushlightuserdata(L, t);
    if (lua_pcall(L, 1, 1, 0)) {
        b->failed = 1; /* the error stays on the stack: end() raises it */
        return 1;
    }
    int cancel = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return cancel;
}

static int on_progress(const sdlora_progress *now, void *user)
{
    return pass_on(user, &(tidings){.b = user, .now = now});
}

static int on_sample(int64_t step, int64_t total, void *user)
{
    return pass_on(user, &(tidings){.b = user, .step = step, .total = total});
}

/* Trainer(ckpt, net, data, {vae =, validation =, progress =, options of kind "train"}) */
static int trainer_new(lua_State *L)
{
    static const char *const others[] = {"vae", "validation", "progress", NULL};
    sdlora_trainer *t = NULL;
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    sdlora_network *net = slua_to(L, 2, NETWORK);
    sdlora_dataset *data = slua_to(L, 3, DATASET);
    lua_settop(L, 4);
    sdlora_options *o = slua_to_options(L, 4, "train", others);
    sdlora_vae *vae = slua_field_handle(L, 4, "vae", VAE);
    sdlora_dataset *validation = slua_field_handle(L, 4, "validation", DATASET);
    box *b = slua_new_box(L, TRAINER);
    take_callback(L, 4, b);
    b->L = L;
    int rc = sdlora_trainer_new(&t, ckpt, vae, net, data, validation, o, on_progress, b);
    b->p = t;
    end(L, b, rc);
    return 1;
}

static int trainer_step(lua_State *L)
{
    box *b = begin(L, TRAINER);
    sdlora_progress now = {.struct_size = sizeof now};
    if (end(L, b, sdlora_trainer_step(b->p, &now)) == SDLORA_DONE)
        lua_pushnil(L);
    else
        push_progress(L, &now);
    return 1;
}

/* for now in trainer:steps() do ... end */
static int trainer_steps(lua_State *L)
{
    slua_to_box(L, 1, TRAINER);
    lua_pushcfunction(L, trainer_step);
    lua_pushvalue(L, 1);
    return 2;
}

static int trainer_run(lua_State *L)
{
    box *b = begin(L, TRAINER);
    end(L, b, sdlora_trainer_run(b->p));
    return 0;
}

static int trainer_cancel(lua_State *L)
{
    sdlora_trainer_cancel(slua_to(L, 1, TRAINER));
    return 0;
}

static int trainer_save(lua_State *L)
{
    slua_check(L, sdlora_trainer_save(slua_to(L, 1, TRAINER), luaL_optstring(L, 2, NULL)));
    return 0;
}

static int trainer_save_state(lua_State *L)
{
    slua_check(L, sdlora_trainer_save_state(slua_to(L, 1, TRAINER), luaL_optstring(L, 2, NULL)));
    return 0;
}

static int trainer_resume(lua_State *L)
{
    slua_check(L, sdlora_trainer_resume(slua_to(L, 1, TRAINER), luaL_checkstring(L, 2)));
    return 0;
}

static int trainer_validate(lua_State *L)
{
    box *b = begin(L, TRAINER);
    double loss = 0;
    end(L, b, sdlora_trainer_validate(b->p, &loss));
    lua_pushnumber(L, loss);
    return 1;
}

static int trainer_network(lua_State *L)
{
    sdlora_trainer *t = slua_to(L, 1, TRAINER);
    box *b = slua_new_box(L, NETWORK);
    b->p = sdlora_network_ref(sdlora_trainer_network(t));
    return 1;
}

/* Ends a job that has no handle; its box is not Lua's. */
static int end_watch(lua_State *L, box *b, int rc)
{
    luaL_unref(L, LUA_REGISTRYINDEX, b->callback);
    return end(L, b, rc);
}

/* evaluate(ckpt, data, {{net, te, unet}, ...}, {vae =, progress =, options of kind "eval"}) */
static int evaluate(lua_State *L)
{
    static const char *const others[] = {"vae", "progress", NULL};
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    sdlora_dataset *data = slua_to(L, 2, DATASET);
    double loss = 0;
    lua_settop(L, 4);
    strengths s = slua_to_strengths(L, 3);
    sdlora_options *o = slua_to_options(L, 4, "eval", others);
    sdlora_vae *vae = slua_field_handle(L, 4, "vae", VAE);
    take_callback(L, 4, &watch);
    end_watch(
        L, &watch,
        sdlora_evaluate(ckpt, vae, data, s.nets, s.te, s.unet, s.n, o, on_progress, &watch, &loss));
    lua_pushnumber(L, loss);
    return 1;
}

/* checkpoint_for_network(ctx, path): one without weights */
static int checkpoint_for_network(lua_State *L)
{
    sdlora_checkpoint *ckpt = NULL;
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    const char *path = luaL_checkstring(L, 2);
    box *b = slua_new_box(L, CHECKPOINT);
    slua_check(L, sdlora_checkpoint_for_network(&ckpt, ctx, path));
    b->p = ckpt;
    return 1;
}

static const char *const watched[] = {"progress", NULL};

/* resize(net, {progress =, options of kind "resize"}) */
static int resize(lua_State *L)
{
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_network *made = NULL, *net = slua_to(L, 1, NETWORK);
    lua_settop(L, 2);
    sdlora_options *o = slua_to_options(L, 2, "resize", watched);
    box *b = slua_new_box(L, NETWORK);
    take_callback(L, 2, &watch);
    end_watch(L, &watch, sdlora_network_resize(&made, net, o, on_progress, &watch));
    b->p = made;
    return 1;
}

/* merge({{net, te, unet}, ...}, {progress =, options of kind "merge"}) */
static int merge(lua_State *L)
{
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_network *made = NULL;
    lua_settop(L, 2);
    strengths s = slua_to_strengths(L, 1);
    sdlora_options *o = slua_to_options(L, 2, "merge", watched);
    box *b = slua_new_box(L, NETWORK);
    take_callback(L, 2, &watch);
    end_watch(L, &watch,
              sdlora_network_merge(&made, s.nets, s.te, s.unet, s.n, o, on_progress, &watch));
    b->p = made;
    return 1;
}

/* extract(tuned, base, {progress =, options of kind "extract"}) */
static int extract(lua_State *L)
{
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_network *made = NULL;
    sdlora_checkpoint *tuned = slua_to(L, 1, CHECKPOINT), *base = slua_to(L, 2, CHECKPOINT);
    lua_settop(L, 3);
    sdlora_options *o = slua_to_options(L, 3, "extract", watched);
    box *b = slua_new_box(L, NETWORK);
    take_callback(L, 3, &watch);
    end_watch(L, &watch, sdlora_network_extract(&made, tuned, base, o, on_progress, &watch));
    b->p = made;
    return 1;
}

/* merge_file(ckpt, {{net, te, unet}, ...}, path, {vae =, progress =, options of kind "merge"}) */
static int merge_file(lua_State *L)
{
    static const char *const others[] = {"vae", "progress", NULL};
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    const char *path = luaL_checkstring(L, 3);
    lua_settop(L, 4);
    strengths s = slua_to_strengths(L, 2);
    sdlora_options *o = slua_to_options(L, 4, "merge", others);
    sdlora_vae *vae = slua_field_handle(L, 4, "vae", VAE);
    take_callback(L, 4, &watch);
    end_watch(L, &watch,
              sdlora_checkpoint_merge_file(ckpt, vae, s.nets, s.te, s.unet, s.n, path, o,
                                           on_progress, &watch));
    return 0;
}

/* plan(ctx, ckpt, net, data, {vae =, validation =, progress =, options of kind "train"}): JSON */
static int plan(lua_State *L)
{
    static const char *const others[] = {"vae", "validation", "progress", NULL};
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_context *ctx = slua_to(L, 1, CONTEXT);
    sdlora_checkpoint *ckpt = slua_to(L, 2, CHECKPOINT);
    sdlora_network *net = slua_to(L, 3, NETWORK);
    sdlora_dataset *data = slua_to(L, 4, DATASET);
    char *json = NULL;
    lua_settop(L, 5);
    sdlora_options *o = slua_to_options(L, 5, "train", others);
    sdlora_vae *vae = slua_field_handle(L, 5, "vae", VAE);
    sdlora_dataset *validation = slua_field_handle(L, 5, "validation", DATASET);
    take_callback(L, 5, &watch);
    end_watch(L, &watch,
              sdlora_plan(ckpt, vae, net, data, validation, o, on_progress, &watch, &json));
    lua_pushstring(L, json);
    sdlora_text_free(ctx, json);
    return 1;
}

/* ckpt:bench(ctx, {progress =, options of kind "bench"}) */
int slua_checkpoint_bench(lua_State *L)
{
    static const char *const others[] = {"progress", NULL};
    box watch = {.L = L, .callback = LUA_NOREF};
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    sdlora_context *ctx = slua_to(L, 2, CONTEXT);
    char *json = NULL;
    lua_settop(L, 3);
    sdlora_options *o = slua_to_options(L, 3, "bench", others);
    take_callback(L, 3, &watch);
    end_watch(L, &watch, sdlora_bench(ctx, ckpt, o, on_progress, &watch, &json));
    lua_pushstring(L, json);
    sdlora_text_free(ctx, json);
    return 1;
}

/* Generator(ckpt, {vae =, progress =}) */
static int generator_new(lua_State *L)
{
    sdlora_generator *g = NULL;
    sdlora_checkpoint *ckpt = slua_to(L, 1, CHECKPOINT);
    lua_settop(L, 2);
    sdlora_vae *vae = slua_field_handle(L, 2, "vae", VAE);
    box *b = slua_new_box(L, GENERATOR);
    take_callback(L, 2, b);
    slua_check(L, sdlora_generator_new(&g, ckpt, vae));
    b->p = g;
    slua_check(L, sdlora_generator_set_progress(g, on_sample, b));
    return 1;
}

static int generator_add_lora_dir(lua_State *L)
{
    slua_check(L, sdlora_generator_add_lora_dir(slua_to(L, 1, GENERATOR), luaL_checkstring(L, 2)));
    return 0;
}

static int generator_add_embeddings(lua_State *L)
{
    slua_check(L,
               sdlora_generator_add_embeddings(slua_to(L, 1, GENERATOR), luaL_checkstring(L, 2)));
    return 0;
}

/* generator:set_refiner(ckpt or nil) */
static int generator_set_refiner(lua_State *L)
{
    sdlora_generator *g = slua_to(L, 1, GENERATOR);
    slua_check(L, sdlora_generator_set_refiner(
                      g, lua_isnoneornil(L, 2) ? NULL : slua_to(L, 2, CHECKPOINT)));
    return 0;
}

/* generator:set_hr_checkpoint(ckpt or nil) */
static int generator_set_hr_checkpoint(lua_State *L)
{
    sdlora_generator *g = slua_to(L, 1, GENERATOR);
    slua_check(L, sdlora_generator_set_hr_checkpoint(
                      g, lua_isnoneornil(L, 2) ? NULL : slua_to(L, 2, CHECKPOINT)));
    return 0;
}

static int generator_add_ckpt_dir(lua_State *L)
{
    slua_check(L, sdlora_generator_add_ckpt_dir(slua_to(L, 1, GENERATOR), luaL_checkstring(L, 2)));
    return 0;
}

static int generator_add_vae_dir(lua_State *L)
{
    slua_check(L, sdlora_generator_add_vae_dir(slua_to(L, 1, GENERATOR), luaL_checkstring(L, 2)));
    return 0;
}

static int generator_add_upscaler_dir(lua_State *L)
{
    slua_check(L,
               sdlora_generator_add_upscaler_dir(slua_to(L, 1, GENERATOR), luaL_checkstring(L, 2)));
    return 0;
}

/* nil: none. */
static const sdlora_image *image_or_nil(lua_State *L, int at)
{
    return lua_isnoneornil(L, at) ? NULL : slua_to(L, at, IMAGE);
}

static int generator_set_init_image(lua_State *L)
{
    slua_check(L, sdlora_generator_set_init_image(slua_to(L, 1, GENERATOR), image_or_nil(L, 2)));
    return 0;
}

static int generator_set_mask(lua_State *L)
{
    slua_check(L, sdlora_generator_set_mask(slua_to(L, 1, GENERATOR), image_or_nil(L, 2)));
    return 0;
}

static int generator_set_network(lua_State *L)
{
    sdlora_generator *g = slua_to(L, 1, GENERATOR);
    sdlora_network *net = slua_to(L, 2, NETWORK);
    slua_check(
        L, sdlora_generator_set_network(g, net, luaL_optnumber(L, 3, 1), luaL_optnumber(L, 4, 1)));
    return 0;
}

/* match(ctx, options, text): what differs from what a picture's parameters name, as one text. */
static int generator_match(lua_State *L)
{
    sdlora_generator *g = slua_to(L, 1, GENERATOR);
    sdlora_context *ctx = slua_to(L, 2, CONTEXT);
    char *notes = NULL;
    slua_check(L,
               sdlora_generator_match(g, slua_to(L, 3, OPTIONS), luaL_checkstring(L, 4), &notes));
    lua_pushstring(L, notes);
    sdlora_text_free(ctx, notes);
    return 1;
}

/* run({prompt =, ...}), or run(options) -> list of images */
static int generator_run(lua_State *L)
{
    int64_t count = 1;
    lua_settop(L, 2);
    sdlora_options *o = slua_to_options(L, 2, "generate", NULL);
    slua_check(L, sdlora_options_get_int(o, "count", &count));
    sdlora_image **images = lua_newuserdata(L, (size_t)count * sizeof *images);
    memset(images, 0, (size_t)count * sizeof *images);
    lua_newtable(L);
    int list = lua_gettop(L);
    for (int64_t i = 1; i <= count; i++) { /* handles first: later nothing may fail */
        slua_new_box(L, IMAGE);
        lua_rawseti(L, list, (int)i);
    }
    box *b = begin(L, GENERATOR);
    end(L, b, sdlora_generator_run(b->p, o, images, (size_t)count));
    for (int64_t i = 0; i < count; i++) {
        lua_rawgeti(L, list, (int)i + 1);
        ((box *)lua_touserdata(L, -1))->p = images[i];
        lua_pop(L, 1);
    }
    return 1;
}

static int generator_cancel(lua_State *L)
{
    sdlora_generator_cancel(slua_to(L, 1, GENERATOR));
    return 0;
}

static int names(lua_State *L, const char *(*name)(size_t))
{
    lua_newtable(L);
    for (size_t i = 0; name(i); i++) {
        lua_pushstring(L, name(i));
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int samplers(lua_State *L)
{
    return names(L, sdlora_sampler_name);
}

static int schedulers(lua_State *L)
{
    return names(L, sdlora_scheduler_name);
}

const luaL_Reg slua_trainer_methods[] = {
    {"step", trainer_step},         {"steps", trainer_steps},
    {"run", trainer_run},           {"cancel", trainer_cancel},
    {"save", trainer_save},         {"resume", trainer_resume},
    {"validate", trainer_validate}, {"save_state", trainer_save_state},
    {"network", trainer_network},   {NULL, NULL}};

const luaL_Reg slua_generator_methods[] = {{"add_lora_dir", generator_add_lora_dir},
                                           {"add_embeddings", generator_add_embeddings},
                                           {"add_vae_dir", generator_add_vae_dir},
                                           {"add_upscaler_dir", generator_add_upscaler_dir},
                                           {"set_init_image", generator_set_init_image},
                                           {"set_mask", generator_set_mask},
                                           {"set_network", generator_set_network},
                                           {"set_refiner", generator_set_refiner},
                                           {"set_hr_checkpoint", generator_set_hr_checkpoint},
                                           {"add_ckpt_dir", generator_add_ckpt_dir},
                                           {"match", generator_match},
                                           {"run", generator_run},
                                           {"cancel", generator_cancel},
                                           {NULL, NULL}};

const luaL_Reg slua_job_functions[] = {{"Trainer", trainer_new},
                                       {"Generator", generator_new},
                                       {"evaluate", evaluate},
                                       {"plan", plan},
                                       {"checkpoint_for_network", checkpoint_for_network},
                                       {"resize", resize},
                                       {"merge", merge},
                                       {"extract", extract},
                                       {"merge_file", merge_file},
                                       {"samplers", samplers},
                                       {"schedulers", schedulers},
                                       {NULL, NULL}};
