// SPDX-License-Identifier: Apache-2.0
// local_key: the baseline that benchmarks compare with: a proxy which has the
// certificates' keys itself, as terminators usually do. Part of the program
// deputy-proxy-local-key alone (proxy/CMakeLists.txt, DEPUTY_BENCH_LOCAL_KEY), which
// is never installed; deputy-proxy has neither this file nor the option
// "benchmark_key" of a chain.
//
// Threads: filled while the first configuration is read, before workers start; a
// reload that brings other keys is not supported, nor are keys ever freed.
#ifndef DEPUTY_BENCH_LOCAL_KEY_H_
#define DEPUTY_BENCH_LOCAL_KEY_H_

#include <openssl/base.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define LOCAL_KEY_MAX 16

// local_key_load reads the key file `path` and files it under its SKI; NULL does
// nothing. STATUS_LIMIT: too many; else as key_read.
enum status local_key_load(const char *path, struct errmsg *err);

// local_key_find borrows the key with this SKI, or returns NULL.
EVP_PKEY *local_key_find(const uint8_t ski[20]);

#endif  // DEPUTY_BENCH_LOCAL_KEY_H_
