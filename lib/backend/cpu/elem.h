/* SPDX-License-Identifier: MIT */
/* How elements are stored, and loops over them: the only place where a NAME_tmpl.c meets its
 * storage type, so that another one is another compilation.  Included by NAME_tmpl.c only. */
#ifndef SLR_BACKEND_CPU_ELEM_H
#define SLR_BACKEND_CPU_ELEM_H

#include "backend/cpu/isa.h"

#define ALWAYS static inline __attribute__((always_inline))

typedef float elem;

ALWAYS vf ld(const elem *p)
{
    return vload(p);
}

ALWAYS void st(elem *p, vf v)
{
    vstore(p, v);
}

/* The first n < VN elements; the other lanes are 0. */
ALWAYS vf ld_n(const elem *p, int64_t n)
{
    elem t[VN] = {0};
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return ld(t);
}

ALWAYS void st_n(elem *p, vf v, int64_t n)
{
    elem t[VN];
    st(t, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = t[i];
}

ALWAYS vf vabs(vf x)
{
    return (vf)((vi)x & 0x7fffffff);
}

/* y = f(x), y = f(a, b); f is inlined.  y may be one of the inputs. */
ALWAYS void map1(int64_t n, elem *y, const elem *x, vf (*f)(vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(x + i)));
    if (i < n)
        st_n(y + i, f(ld_n(x + i, n - i)), n - i);
}

ALWAYS void map2(int64_t n, elem *y, const elem *a, const elem *b, vf (*f)(vf, vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(a + i), ld(b + i)));
    if (i < n)
        st_n(y + i, f(ld_n(a + i, n - i), ld_n(b + i, n - i)), n - i);
}

#endif
