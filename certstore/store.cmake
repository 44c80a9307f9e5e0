# SPDX-License-Identifier: Apache-2.0
#
# The store on disk (LMDB): the proxy, deputyctl and the tests link it.

deputy_add_library(deputy_store
  SOURCES
    cache.c
    ready.c
    store.c
    store_add.c
    store_choose.c
    store_compact.c
    store_match.c
    store_pages.c
    store_pending.c
    store_reader.c
    store_states.c
    store_sweep.c
    store_switch.c
    store_verify.c
    store_walk.c
    store_words.c
    store_write.c
  DEPS
    deputy_certstore
    deputy_tls
    deputy_wire
    deputy_base
    BoringSSL::crypto
    Deputy::lmdb)
