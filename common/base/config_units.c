// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/config_internal.h"

struct unit {
  const char *name;
  int64_t factor;
};

// The largest first: formatting takes the first that divides.
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0},
};
static const struct unit size_units[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {NULL, 0},
};

// Digits, then one of the units; no sign, no fraction, nothing around.
static enum status parse(int64_t *out, const char *text, const struct unit *units) {
  int64_t number = 0;
  const char *c = text;
  while (*c >= '0' && *c <= '9') {
    if (__builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, *c - '0', &number)) {
      return STATUS_LIMIT;
    }
    c += 1;
  }
  if (c == text) {
    return STATUS_FORMAT;
  }
  for (const struct unit *unit = units; unit->name != NULL; unit++) {
    if (strcmp(c, unit->name) == 0) {
      return __builtin_mul_overflow(number, unit->factor, out) ? STATUS_LIMIT : STATUS_OK;
    }
  }
  return STATUS_FORMAT;
}

enum status config_parse_duration(int64_t *out_ms, const char *text) {
  return parse(out_ms, text, duration_units);
}

enum status config_parse_size(int64_t *out_len, const char *text) {
  return parse(out_len, text, size_units);
}

static char *format(char out[CONFIG_UNIT_LEN], int64_t number, const struct unit *units,
                    const char *zero) {
  if (number == 0) {
    (void)snprintf(out, CONFIG_UNIT_LEN, "%s", zero);
    return out;
  }
  while (units->factor != 1 && number % units->factor != 0) {
    units += 1;
  }
  (void)snprintf(out, CONFIG_UNIT_LEN, "%" PRId64 "%s", number / units->factor, units->name);
  return out;
}

char *config_format_duration(char out[CONFIG_UNIT_LEN], int64_t ms) {
  return format(out, ms, duration_units, "0s");
}

char *config_format_size(char out[CONFIG_UNIT_LEN], int64_t len) {
  return format(out, len, size_units, "0");
}

static char *format_bound(char out[CONFIG_UNIT_LEN], enum config_type type, int64_t number) {
  if (type == CONFIG_DURATION) {
    return config_format_duration(out, number);
  }
  if (type == CONFIG_SIZE) {
    return config_format_size(out, number);
  }
  (void)snprintf(out, CONFIG_UNIT_LEN, "%" PRId64, number);
  return out;
}

char *config_format_range(char out[CONFIG_RANGE_LEN], const struct config_option *option) {
  char min[CONFIG_UNIT_LEN];
  char max[CONFIG_UNIT_LEN];
  out[0] = '\0';
  if (option->min == 0 && option->max == 0) {
    return out;
  }
  (void)format_bound(min, option->type, option->min);
  (void)format_bound(max, option->type, option->max);
  if (option->max < option->min) {
    (void)snprintf(out, CONFIG_RANGE_LEN, "at least %s", min);
  } else if (option->max == option->min) {
    (void)snprintf(out, CONFIG_RANGE_LEN, "exactly %s", min);
  } else {
    (void)snprintf(out, CONFIG_RANGE_LEN, "%s to %s", min, max);
  }
  return out;
}
