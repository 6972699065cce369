/* SPDX-License-Identifier: MIT */
/* What the files of samplers share: steps are linear combinations of a few arrays, with
 * coefficients in doubles; and the functions behind the rows of solvers.c. */
#ifndef SLR_SAMPLE_SOLVERS_H
#define SLR_SAMPLE_SOLVERS_H

#include "sample/solver.h"

typedef struct slr_term {
    double c;
    const float *v;
} slr_term;
/* out = sum of c v; out may be one of the v. */
void slr_mix(float *out, size_t n, const slr_term *terms, int count);
#define SLR_MIX(s, out, ...)                                                                       \
    slr_mix(out, (s)->n, (const slr_term[]){__VA_ARGS__},                                          \
            (int)(sizeof((const slr_term[]){__VA_ARGS__}) / sizeof(slr_term)))

/* Tells of a finished step; not 0: the sampler returns that at once (x is already what it is to
 * be).
 */
int slr_solver_step(slr_sampling *s, int index, int total, const float *denoised);
/* x += noise of that deviation; drawn even where it is 0, since the next draw must be the same. */
int slr_solver_noise(slr_sampling *s, float *scratch, double deviation);
/* How much of a step between two sigmas is deterministic (down) and how much is new noise (up). */
void slr_solver_ancestral(double from, double to, double eta, double *down, double *up);
/* Churn: raises x to the sigma that comes back.  scratch: one array. */
int slr_solver_churn(slr_sampling *s, int i, float *scratch, double *sigma);

int slr_solve_euler(slr_sampling *s);
int slr_solve_heun(slr_sampling *s);
int slr_solve_dpm2(slr_sampling *s);
int slr_solve_lms(slr_sampling *s);
int slr_solve_dpmpp_2m(slr_sampling *s);
int slr_solve_restart(slr_sampling *s);

int slr_solve_euler_a(slr_sampling *s);
int slr_solve_dpm2_a(slr_sampling *s);
int slr_solve_dpmpp_2s_a(slr_sampling *s);
int slr_solve_dpmpp_sde(slr_sampling *s);
int slr_solve_dpmpp_2m_sde(slr_sampling *s);
int slr_solve_dpmpp_2m_sde_heun(slr_sampling *s);
int slr_solve_dpmpp_3m_sde(slr_sampling *s);
int slr_solve_lcm(slr_sampling *s);

int slr_solve_dpm_fast(slr_sampling *s);
int slr_solve_dpm_adaptive(slr_sampling *s);

int slr_solve_ddim(slr_sampling *s);
int slr_solve_ddim_cfgpp(slr_sampling *s);
int slr_solve_plms(slr_sampling *s);
int slr_solve_unipc(slr_sampling *s);

#endif
