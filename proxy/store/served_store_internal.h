// SPDX-License-Identifier: Apache-2.0
// What the files of served_store.h share.
#ifndef DEPUTY_PROXY_STORE_SERVED_STORE_INTERNAL_H_
#define DEPUTY_PROXY_STORE_SERVED_STORE_INTERNAL_H_

#include "proxy/store/life_left.h"
#include "proxy/store/loader.h"
#include "proxy/store/lookup.h"
#include "proxy/store/name_cache.h"
#include "proxy/store/renewal.h"
#include "proxy/store/served_store.h"
#include "proxy/store/state_follower.h"
#include "proxy/store/store_handle.h"
#include "proxy/store/store_tasks.h"

struct served_store {
  struct loop *loop;
  struct timer timer;
  int64_t restless_ms;  // when the folder was last looked at
  struct store_handle handle;
  struct state_follower follower;
  struct name_cache names;
  struct loader loader;
  struct renewal renewal;
  struct store_tasks tasks;
  struct lookup lookup;
  struct life_left life_left;
};

#endif  // DEPUTY_PROXY_STORE_SERVED_STORE_INTERNAL_H_
