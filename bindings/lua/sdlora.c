/* SPDX-License-Identifier: MIT */
/* The Lua module `sdlora`: one table of constructors and functions, one metatable for each class.
 * Knows which there are; what they do stands in box.c, handles.c, image.c and jobs.c. */
#include "box.h"

#define DROP(type)                                                                                 \
    static void drop_##type(void *p)                                                               \
    {                                                                                              \
        sdlora_##type##_unref(p);                                                                  \
    }
DROP(context)
DROP(options)
DROP(checkpoint)
DROP(vae)
DROP(network)
DROP(dataset)
DROP(image)
DROP(trainer)
DROP(generator)

const class slua_classes[N_CLASSES] = {
    [CONTEXT] = {"sdlora.Context", drop_context, slua_context_methods},
    [OPTIONS] = {"sdlora.Options", drop_options, slua_options_methods},
    [CHECKPOINT] = {"sdlora.Checkpoint", drop_checkpoint, slua_checkpoint_methods},
    [VAE] = {"sdlora.Vae", drop_vae, slua_vae_methods},
    [NETWORK] = {"sdlora.Network", drop_network, slua_network_methods},
    [DATASET] = {"sdlora.Dataset", drop_dataset, slua_dataset_methods},
    [IMAGE] = {"sdlora.Image", drop_image, slua_image_methods},
    [TRAINER] = {"sdlora.Trainer", drop_trainer, slua_trainer_methods},
    [GENERATOR] = {"sdlora.Generator", drop_generator, slua_generator_methods},
};

static int version(lua_State *L)
{
    lua_pushstring(L, sdlora_version());
    return 1;
}

static const luaL_Reg module_functions[] = {{"version", version}, {NULL, NULL}};
static const luaL_Reg lifetime[] = {
    {"close", slua_close}, {"__gc", slua_close}, {"__close", slua_close}, {NULL, NULL}};

__attribute__((visibility("default"))) int luaopen_sdlora(lua_State *L);
int luaopen_sdlora(lua_State *L)
{
    slua_open_log(L);
    for (int i = 0; i < N_CLASSES; i++) {
        luaL_newmetatable(L, slua_classes[i].name);
        luaL_setfuncs(L, slua_classes[i].methods, 0);
        luaL_setfuncs(L, lifetime, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
        lua_pop(L, 1);
    }
    lua_newtable(L);
    luaL_setfuncs(L, module_functions, 0);
    luaL_setfuncs(L, slua_option_functions, 0);
    luaL_setfuncs(L, slua_handle_functions, 0);
    luaL_setfuncs(L, slua_image_functions, 0);
    luaL_setfuncs(L, slua_job_functions, 0);
    return 1;
}
