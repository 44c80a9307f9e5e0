// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share: all that control owns.
#ifndef DEPUTY_PROXY_CONTROL_CONTROL_INTERNAL_H_
#define DEPUTY_PROXY_CONTROL_CONTROL_INTERNAL_H_

#include "certstore/certstore.h"
#include "certstore/state.h"
#include "common/base/sink.h"
#include "common/tls/tickets.h"
#include "proxy/admin/state_file.h"
#include "proxy/connection/address_table.h"
#include "proxy/connection/conn_list.h"
#include "proxy/control/changeover.h"
#include "proxy/control/control.h"
#include "proxy/control/drain.h"
#include "proxy/control/reload.h"
#include "proxy/control/services.h"
#include "proxy/dc/credentials.h"
#include "proxy/grace.h"
#include "proxy/handshake/ticket_schedule.h"
#include "proxy/memory_watch.h"
#include "proxy/origin/origins.h"
#include "proxy/store/served_store.h"
#include "proxy/watchdog.h"
#include "proxy/worker.h"

struct control {
  const char *config_path;
  struct options start_options;  // until control_load takes them
  struct loop *loop;
  int64_t started_s;
  int64_t started_ms;  // the same by the monotonic clock

  // What sites are made of, and what outlives them.
  struct states *states;
  struct state_file *state_file;
  struct audit_log audit;
  struct timer watch_audit;
  struct tickets *tickets;
  struct ticket_schedule ticket_schedule;
  struct origins *origins;
  struct listeners listeners;
  struct served_store *store;  // NULL: there is none
  struct credentials *credentials;

  struct worker_host host;
  struct worker *workers[OPTIONS_MAX_WORKERS];
  size_t num_workers;
  struct grace *grace;
  struct address_table *addresses;
  struct memory_watch *memory;
  struct conn_lister *lister;
  struct watchdog *watchdog;  // NULL: nobody wants to hear

  struct sites sites;
  struct services services;
  struct changeover changeover;
  struct drain drain;
};

// control_announce says that we serve: on standard output, to the service manager, to who
// waits for --background.
void control_announce(const struct control *control);

#endif  // DEPUTY_PROXY_CONTROL_CONTROL_INTERNAL_H_
