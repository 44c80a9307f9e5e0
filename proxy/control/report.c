// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/report.h"

#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/keyclient/report.h"
#include "proxy/connection/shedding.h"
#include "proxy/control/control_internal.h"
#include "proxy/dc/credentials.h"
#include "proxy/metrics.h"
#include "version.h"

static struct metrics_source metrics_source(const struct control *control) {
  return (struct metrics_source){
      .workers = control->workers,
      .num_workers = control->num_workers,
      .keyclients = control->sites.keyclients,
      .site = control->sites.current,
      .credentials = control->credentials,
      .started_s = control->started_s,
      .num_reloads = control->sites.num_reloads,
      .num_reloads_failed = control->sites.num_reloads_failed,
      .audit = control->audit.sink,
  };
}

static struct shedding_source shedding_source(const struct control *control) {
  return (struct shedding_source){control->workers, control->num_workers, control->memory};
}

void report_write_metrics(void *arg, struct metrics_text *text) {
  const struct control *control = arg;
  const struct metrics_source source = metrics_source(control);
  const struct shedding_source shedding = shedding_source(control);
  metrics_write(&source, text);
  ticket_schedule_write_metrics(&control->ticket_schedule, text);
  shedding_write_metrics(&shedding, text);
  origins_write_metrics(control->origins, text);
  services_write_metrics(&control->services, text);
  if (control->store != NULL) {
    served_store_write_metrics(control->store, text);
  }
}

// --- GET /v1/status ----------------------------------------------------------------------

static json_t *list_listeners(const struct control *control) {
  json_t *list = json_array();
  for (size_t i = 0; i < control->listeners.num; i++) {
    const struct listener *listener = &control->listeners.items[i];
    char text[ADDRESS_TEXT_LEN];
    (void)json_array_append_new(list, json_pack("{s:s,s:s}", "name", listener->name, "address",
                                                address_format(text, &listener->address)));
  }
  return list;
}

// list_key_servers tells how the key servers are, by all workers together.
static json_t *list_key_servers(const struct control *control) {
  struct keyclient_report rows[KEYCLIENT_MAX_SERVERS];
  const size_t num = keyclient_report(rows, control->sites.keyclients, control->num_workers);
  json_t *list = json_array();
  for (size_t i = 0; i < num; i++) {
    const struct keyclient_report *row = &rows[i];
    uint64_t num_failed = 0;
    for (size_t k = 0; k < KEYCLIENT_NUM_FAILURES; k++) {
      num_failed += row->num_failed[k];
    }
    (void)json_array_append_new(
        list,
        json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", row->server, "state",
                  keyclient_report_state(row), "connections", (json_int_t)row->num_connections,
                  "in_flight", (json_int_t)row->num_in_flight, "srtt_us", (json_int_t)row->srtt_us,
                  "distance_us", (json_int_t)row->distance_us, "answered",
                  (json_int_t)row->num_answered, "failures", (json_int_t)num_failed, "hedges",
                  (json_int_t)row->num_hedges));
  }
  return list;
}

void report_add_status(void *arg, json_t *object) {
  const struct control *control = arg;
  const struct metrics_source source = metrics_source(control);
  const struct shedding_source shedding = shedding_source(control);
  json_t *handshakes = json_object();
  for (unsigned by = 0; by < SOURCE_NUM; by++) {
    (void)json_object_set_new(
        handshakes, source_name((enum source)by),
        json_integer((json_int_t)metrics_num_handshakes(&source, (enum source)by)));
  }
  (void)json_object_set_new(object, "version", json_string(DEPUTY_VERSION));
  (void)json_object_set_new(object, "log_level", json_string(log_level_name(log_get_level())));
  (void)json_object_set_new(object, "pid", json_integer((json_int_t)getpid()));
  (void)json_object_set_new(
      object, "uptime_s",
      json_integer((json_int_t)((clock_monotonic_ms() - control->started_ms) / 1000)));
  (void)json_object_set_new(object, "workers", json_integer((json_int_t)control->num_workers));
  (void)json_object_set_new(object, "connections",
                            json_integer((json_int_t)metrics_num_open(&source)));
  (void)json_object_set_new(object, "handshakes", handshakes);
  shedding_add_status(&shedding, object);
  (void)json_object_set_new(object, "listeners", list_listeners(control));
  (void)json_object_set_new(object, "key_servers", list_key_servers(control));
  (void)json_object_set_new(object, "origins", origins_list(control->origins));
  (void)json_object_set_new(object, "credentials", credentials_status(control->credentials));
  (void)json_object_set_new(object, "reloads",
                            json_integer((json_int_t)control->sites.num_reloads));
  if (control->store != NULL) {
    served_store_add_status(control->store, object);
  }
  (void)json_object_set_new(object, "is_draining", json_boolean(control->drain.is_draining));
}
