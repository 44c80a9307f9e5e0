// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t override_s;  // 0: the real clock

static int64_t read_us(clockid_t id) {
  struct timespec now = {0};
  (void)clock_gettime(id, &now);  // cannot fail for these clocks
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_monotonic_ms(void) { return read_us(CLOCK_MONOTONIC) / 1000; }

int64_t clock_monotonic_us(void) { return read_us(CLOCK_MONOTONIC); }

int64_t clock_thread_cpu_us(void) { return read_us(CLOCK_THREAD_CPUTIME_ID); }

int64_t clock_wall_us(void) {
  int64_t fixed_s = atomic_load_explicit(&override_s, memory_order_relaxed);
  return fixed_s != 0 ? fixed_s * 1000000 : read_us(CLOCK_REALTIME);
}

int64_t clock_wall_s(void) {
  int64_t fixed_s = atomic_load_explicit(&override_s, memory_order_relaxed);
  return fixed_s != 0 ? fixed_s : read_us(CLOCK_REALTIME) / 1000000;
}

int64_t clock_file_us(void) { return read_us(CLOCK_REALTIME_COARSE); }

void clock_override_wall_s(int64_t now_s) {
  atomic_store_explicit(&override_s, now_s, memory_order_relaxed);
}

static void put_digits(char *out, int64_t value, int num) {
  for (int i = num - 1; i >= 0; i--) {
    out[i] = (char)('0' + value % 10);
    value /= 10;
  }
}

// Days since 1970-01-01 to year, month and day. The year is counted from March,
// so that the leap day is its last and the months need no table. Written out
// because gmtime_r takes the lock of the time zone, and audit lines are many.
static void civil_from_days(int64_t days, int64_t *out_year, int64_t *out_month, int64_t *out_day) {
  // Counted from 400 years before 0000-03-01, so that nothing is negative.
  int64_t from_era = days + 719468 + 146097;
  int64_t era = from_era / 146097 - 1;  // 400 years each
  int64_t day_of_era = from_era % 146097;
  int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int64_t month = (5 * day_of_year + 2) / 153;  // 0 is March
  *out_day = day_of_year - (153 * month + 2) / 5 + 1;
  *out_month = month < 10 ? month + 3 : month - 9;
  *out_year = era * 400 + year_of_era + (*out_month <= 2 ? 1 : 0);
}

// What RFC 3339 can write: years 0 to 9999.
#define FIRST_S (-62167219200LL)
#define LAST_S 253402300799LL

static int64_t put_date_time(char *out, int64_t wall_s) {
  int64_t clamped_s = wall_s < FIRST_S ? FIRST_S : wall_s > LAST_S ? LAST_S : wall_s;
  int64_t days = (clamped_s - FIRST_S) / 86400 + FIRST_S / 86400;
  int64_t second = (clamped_s - FIRST_S) % 86400;
  int64_t year = 0;
  int64_t month = 0;
  int64_t day = 0;

  civil_from_days(days, &year, &month, &day);
  put_digits(out, year, 4);
  out[4] = '-';
  put_digits(out + 5, month, 2);
  out[7] = '-';
  put_digits(out + 8, day, 2);
  out[10] = 'T';
  put_digits(out + 11, second / 3600, 2);
  out[13] = ':';
  put_digits(out + 14, second / 60 % 60, 2);
  out[16] = ':';
  put_digits(out + 17, second % 60, 2);
  return 19;
}

char *clock_format_rfc3339(char out[CLOCK_RFC3339_LEN], int64_t wall_s) {
  int64_t len = put_date_time(out, wall_s);
  out[len] = 'Z';
  out[len + 1] = '\0';
  return out;
}

enum status clock_parse_rfc3339(int64_t *out_s, const char *text) {
  struct tm tm = {0};
  const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
  if (end == NULL || *end != '\0') {
    return STATUS_FORMAT;
  }
  *out_s = (int64_t)timegm(&tm);
  return STATUS_OK;
}

char *clock_format_rfc3339_us(char out[CLOCK_RFC3339_LEN], int64_t wall_us, int num_digits) {
  int64_t second = wall_us / 1000000;
  int64_t fraction = wall_us % 1000000;
  int64_t len = 0;
  if (fraction < 0) {
    second -= 1;
    fraction += 1000000;
  }
  for (int i = num_digits; i < 6; i++) {
    fraction /= 10;
  }
  len = put_date_time(out, second);
  out[len] = '.';
  put_digits(out + len + 1, fraction, num_digits);
  out[len + 1 + num_digits] = 'Z';
  out[len + 2 + num_digits] = '\0';
  return out;
}
