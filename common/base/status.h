// SPDX-License-Identifier: Apache-2.0
// status: what every call that can fail returns, and the one macro that hides
// a jump. A status is a class a caller can act on; the sentence for a person
// travels beside it in a struct errmsg (errmsg.h).
#ifndef DEPUTY_COMMON_BASE_STATUS_H_
#define DEPUTY_COMMON_BASE_STATUS_H_

// Version 14 of clang-format does not know the attribute of an enum.
// clang-format off
enum [[nodiscard]] status {
  STATUS_OK = 0,
  STATUS_SYSTEM,       // a system call failed; errno tells why
  STATUS_MEMORY,       // no memory
  STATUS_FORMAT,       // the bytes are not what they claim to be
  STATUS_LIMIT,        // a named limit would be passed
  STATUS_NOT_FOUND,    // no such key, name, chain
  STATUS_EXISTS,       // it is there already
  STATUS_REFUSED,      // policy says no; asking again will not help
  STATUS_CONFIG,       // the configuration is wrong; the errmsg says where
  STATUS_CRYPTO,       // a cryptographic operation failed or did not verify
  STATUS_EXPIRED,      // outside its validity
  STATUS_TIMEOUT,      // a deadline passed
  STATUS_CLOSED,       // the peer went away
  STATUS_UNAVAILABLE,  // nobody can serve this now; another time, another server might
  STATUS_AGAIN,        // not ready yet; the caller will be told
  STATUS_NUM,
};
// clang-format on

// status_name returns a short lower-case word for logs and metrics, as
// "timeout". Static.
const char *status_name(enum status st);

// TRY runs `step`; on anything but STATUS_OK it keeps that in the local `st`
// and goes to the local label `out`.
#define TRY(step)          \
  do {                     \
    st = (step);           \
    if (st != STATUS_OK) { \
      goto out;            \
    }                      \
  } while (0)

// CHECK aborts, in every build, when an invariant of ours is broken. Bytes
// from a peer never reach a CHECK.
#define CHECK(condition)                            \
  do {                                              \
    if (!(condition)) {                             \
      check_failed(#condition, __FILE__, __LINE__); \
    }                                               \
  } while (0)

_Noreturn void check_failed(const char *condition, const char *file, int line);

#endif  // DEPUTY_COMMON_BASE_STATUS_H_
