// SPDX-License-Identifier: Apache-2.0
// The two halves of sandbox.c.
#ifndef DEPUTY_COMMON_BASE_SANDBOX_INTERNAL_H_
#define DEPUTY_COMMON_BASE_SANDBOX_INTERNAL_H_

#include "common/base/sandbox.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANDBOX_IS_INSTRUMENTED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_IS_INSTRUMENTED 1
#endif
#ifndef SANDBOX_IS_INSTRUMENTED
#define SANDBOX_IS_INSTRUMENTED 0
#endif

// Both: STATUS_UNAVAILABLE with the reason when the kernel does not have it.

// sandbox_landlock_enter sets *out_abi and *out_has_files when it succeeds.
enum status sandbox_landlock_enter(int *out_abi, bool *out_has_files,
                                   const struct sandbox_spec *spec,
                                   const struct sandbox_options *options, struct errmsg *err);

enum status sandbox_seccomp_enter(const struct sandbox_spec *spec, struct errmsg *err);

#endif  // DEPUTY_COMMON_BASE_SANDBOX_INTERNAL_H_
