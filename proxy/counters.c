// SPDX-License-Identifier: Apache-2.0
#include "proxy/counters.h"

static const char *const source_names[SOURCE_NUM] = {
    [SOURCE_DC] = "dc", [SOURCE_CERTIFICATE] = "certificate", [SOURCE_RESUMED] = "resumed"};
static const char *const version_names[VERSION_NUM] = {[VERSION_12] = "1.2", [VERSION_13] = "1.3"};
static const char *const refusal_names[REFUSAL_NUM] = {
    [REFUSAL_LIMIT] = "limit",
    [REFUSAL_DESCRIPTORS] = "descriptors",
    [REFUSAL_MEMORY] = "memory",
    [REFUSAL_MEMORY_CEILING] = "memory_ceiling",
    [REFUSAL_HANDSHAKES] = "handshakes",
    [REFUSAL_BUSY] = "busy",
    [REFUSAL_ADDRESS_CONNECTIONS] = "address_connections",
    [REFUSAL_ADDRESS_RATE] = "address_rate",
};
static const char *const outcome_names[OUTCOME_NUM] = {
    [OUTCOME_DONE] = "done",
    [OUTCOME_TRUNCATED] = "truncated",
    [OUTCOME_HANDSHAKE] = "handshake_failed",
    [OUTCOME_ORIGIN_REFUSED] = "origin_refused",
    [OUTCOME_ORIGIN_TIMEOUT] = "origin_timeout",
    [OUTCOME_ORIGIN_NONE] = "origin_none",
    [OUTCOME_ORIGIN_FULL] = "origin_full",
    [OUTCOME_ORIGIN_RESET] = "origin_reset",
    [OUTCOME_CLIENT_RESET] = "client_reset",
    [OUTCOME_CLIENT_PROTOCOL] = "client_protocol",
    [OUTCOME_IDLE] = "idle",
    [OUTCOME_DRAINED] = "drained",
    [OUTCOME_MEMORY] = "memory",
};

const char *source_name(enum source source) { return source_names[source]; }
const char *version_name(enum version version) { return version_names[version]; }
const char *refusal_name(enum refusal refusal) { return refusal_names[refusal]; }
const char *outcome_name(enum outcome outcome) { return outcome_names[outcome]; }
