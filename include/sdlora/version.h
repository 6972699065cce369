/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/version.h
 * The numbers that name a release.  meson.build reads them from here.
 */
#ifndef SDLORA_VERSION_H
#define SDLORA_VERSION_H

#define SDLORA_VERSION_MAJOR 0
#define SDLORA_VERSION_MINOR 1
#define SDLORA_VERSION_PATCH 0
#define SDLORA_VERSION_STRING "0.1.0"

#endif /* SDLORA_VERSION_H */
