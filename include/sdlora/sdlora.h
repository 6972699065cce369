/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/sdlora.h
 * All public headers but the plugin border (sdlora/backend.h).
 */
#ifndef SDLORA_SDLORA_H
#define SDLORA_SDLORA_H

#include <sdlora/types.h>
#include <sdlora/version.h>
#include <sdlora/context.h>
#include <sdlora/options.h>
#include <sdlora/checkpoint.h>
#include <sdlora/network.h>
#include <sdlora/dataset.h>
#include <sdlora/image.h>
#include <sdlora/trainer.h>
#include <sdlora/sampler.h>
#include <sdlora/grid.h>
#include <sdlora/merge.h>
#include <sdlora/bench.h>
#include <sdlora/tools.h>

#endif /* SDLORA_SDLORA_H */
