# SPDX-License-Identifier: Apache-2.0
#
# The store on disk (LMDB): deputyctl and the tests link it.

deputy_add_library(deputy_store
  SOURCES
    store.c
    store_choose.c
    store_states.c
    store_verify.c
    store_write.c
  DEPS
    deputy_certstore
    deputy_tls
    deputy_wire
    deputy_base
    BoringSSL::crypto
    Deputy::lmdb)
