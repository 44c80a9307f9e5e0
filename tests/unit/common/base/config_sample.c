// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/base/config_sample.h"

static const char *const modes[] = {"off", "report", "switch", NULL};

// clang-format off
static const struct config_option chain_options[] = {
    {.name = "certificate", .type = CONFIG_PATH, .offset = offsetof(struct sample_chain, certificate),
     .is_required = true, .help = "A file."},
    {.name = "lifetime", .type = CONFIG_DURATION, .offset = offsetof(struct sample_chain, lifetime_ms),
     .fallback = "48h", .help = "How long."},
    {.type = CONFIG_END},
};

static const struct config_option name_options[] = {
    {.name = "name", .type = CONFIG_TEXT, .offset = offsetof(struct sample_name, name),
     .is_required = true, .min = 1, .max = 253, .help = "A host name."},
    {.name = "chains", .type = CONFIG_OBJECTS, .offset = offsetof(struct sample_name, chains),
     .count_offset = offsetof(struct sample_name, num_chains), .is_required = true, .min = 1, .max = 2,
     .children = chain_options, .child_size = sizeof(struct sample_chain), .help = "In order."},
    {.type = CONFIG_END},
};

static const struct config_option limit_options[] = {
    {.name = "handshake", .type = CONFIG_DURATION, .offset = offsetof(struct sample, limits.handshake_ms) - offsetof(struct sample, limits),
     .fallback = "10s", .min = 100, .max = 60000, .help = "Longest handshake."},
    {.name = "buffer", .type = CONFIG_SIZE, .offset = offsetof(struct sample, limits.buffer_len) - offsetof(struct sample, limits),
     .fallback = "64KiB", .min = 4096, .max = -1, .help = "Bytes in flight."},
    {.type = CONFIG_END},
};

const struct config_option sample_options[] = {
    {.name = "user", .type = CONFIG_TEXT, .offset = offsetof(struct sample, user),
     .is_required = true, .min = 1, .max = 8, .help = "Who it runs as."},
    {.name = "log", .type = CONFIG_PATH, .offset = offsetof(struct sample, log),
     .fallback = "stderr", .help = "A | in a cell."},
    {.name = "on", .type = CONFIG_BOOL, .offset = offsetof(struct sample, is_on),
     .fallback = "true", .help = "Whether."},
    {.name = "workers", .type = CONFIG_INT, .offset = offsetof(struct sample, workers),
     .fallback = "4", .min = 1, .max = 1024, .help = "Threads."},
    {.name = "mode", .type = CONFIG_WORD, .offset = offsetof(struct sample, mode),
     .fallback = "report", .words = modes, .help = "What to do."},
    {.name = "listen", .type = CONFIG_TEXTS, .offset = offsetof(struct sample, listen),
     .count_offset = offsetof(struct sample, num_listen),
     .fallback = "[\"127.0.0.1:443\", \"[::1]:443\"]", .min = 1, .max = 3, .help = "Where."},
    {.name = "roots", .type = CONFIG_PATHS, .offset = offsetof(struct sample, roots),
     .count_offset = offsetof(struct sample, num_roots), .help = "Whom to trust."},
    {.name = "limits", .type = CONFIG_OBJECT, .offset = offsetof(struct sample, limits),
     .children = limit_options, .help = "Limits."},
    {.name = "tls", .type = CONFIG_OBJECT, .offset = offsetof(struct sample, tls),
     .children = chain_options, .help = "One chain."},
    {.name = "names", .type = CONFIG_OBJECTS, .offset = offsetof(struct sample, names),
     .count_offset = offsetof(struct sample, num_names), .children = name_options,
     .child_size = sizeof(struct sample_name), .help = "The names."},
    {.type = CONFIG_END},
};
// clang-format on
