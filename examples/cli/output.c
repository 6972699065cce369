/* SPDX-License-Identifier: MIT */
/* What goes to the terminal: a progress line on stderr, JSON made readable on stdout. */
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 20 };
static const double PIPE_SECONDS = 5; /* between lines that nobody watches */

static struct {
    bool open;   /* a line on the terminal has no end yet */
    double last; /* when a line was written to a pipe */
} line;

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void eta_text(double eta, char out[32])
{
    long s = isfinite(eta) && eta >= 0 && eta < 1e9 ? (long)(eta + 0.5) : -1;

    if (s < 0)
        snprintf(out, 32, "--:--");
    else if (s < 3600)
        snprintf(out, 32, "%02ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

void cli_progress(const char *what, long long done, long long total, double eta, const char *more)
{
    int filled = total > 0 ? (int)(done * BAR / total) : 0;
    bool terminal = isatty(STDERR_FILENO);
    char left[32], bar[BAR + 1];

    eta_text(eta, left);
    if (!terminal) {
        if (done < total && line.last > 0 && seconds() - line.last < PIPE_SECONDS)
            return;
        line.last = seconds();
        fprintf(stderr, "%s %lld/%lld ETA %s%s%s\n", what, done, total, left, *more ? " " : "",
                more);
        return;
    }
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)(filled < 0 ? 0 : filled > BAR ? BAR : filled));
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %lld/%lld ETA %s %s", what, bar, done, total, left, more);
    fflush(stderr);
    line.open = true;
}

void cli_progress_end(void)
{
    if (line.open)
        fprintf(stderr, "\n");
    line.open = false;
    line.last = 0;
}

void cli_quote(const char *text)
{
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            printf("\\%c", *p);
        else if (*p < 0x20)
            printf("\\u%04x", *p);
        else
            putchar(*p);
    }
    putchar('"');
}

/* --- JSON as lines --- */

/* Prints a string literal without its quotes, simple escapes undone; returns what follows it. */
static const char *print_string(const char *p, size_t width)
{
    size_t n = 0;

    for (p++; *p && *p != '"'; p++, n++) {
        bool escaped = *p == '\\' && p[1];

        if (escaped)
            p++;
        if (width && n >= width)
            continue;
        putchar(escaped && (*p == 'n' || *p == 't' || *p == 'r') ? ' ' : *p);
    }
    if (width && n > width)
        printf("...");
    return *p ? p + 1 : p;
}

static void indent(int depth)
{
    printf("\n%*s", 2 * (depth > 0 ? depth - 1 : 0), "");
}

void cli_print_json(const char *json, size_t width)
{
    int depth = 0;
    bool fresh = true; /* at the beginning of a line or item */

    for (const char *p = json; *p;) {
        if (*p == '"') {
            if (fresh && depth > 1)
                indent(depth);
            else if (fresh && depth == 1)
                indent(1);
            p = print_string(p, width);
            fresh = false;
        } else if (*p == '{' || *p == '[') {
            if (fresh && depth > 0)
                indent(depth), printf("-");
            depth++;
            fresh = true;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            fresh = false;
            p++;
        } else if (*p == ',') {
            fresh = true;
            p++;
        } else if (*p == ':') {
            printf(": ");
            p++;
        } else if (*p == ' ' || *p == '\n') {
            p++;
        } else {
            size_t n = strcspn(p, ",}] \n");

            if (fresh)
                indent(depth);
            printf("%.*s", (int)n, p);
            fresh = false;
            p += n;
        }
    }
    printf("\n");
}
