// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/services.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/control/admin_host.h"
#include "proxy/control/control_internal.h"
#include "proxy/control/report.h"

#define METRICS_MAX_CONNECTIONS 64

static void close_fd(int *fd) {
  if (*fd >= 0) {
    (void)close(*fd);
    *fd = -1;
  }
}

// --- sockets -----------------------------------------------------------------------------

void services_init(struct services *services) {
  services->admin_fd = services->admin_kept_fd = -1;
  services->metrics_fd = services->metrics_kept_fd = -1;
}

static enum status bind_admin(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct services *services = &control->services;
  const struct admin_options *options = &control->start_options.admin;
  char text[ADDRESS_TEXT_LEN];
  char *end = NULL;
  unsigned long mode = strtoul(options->mode, &end, 8);
  struct address address = {0};
  bool is_foreign = false;

  if (options->socket == NULL) {
    return STATUS_OK;
  }
  if (*end != '\0' || mode > 0777) {
    return errmsg_set(err, STATUS_CONFIG, "admin.mode is \"%s\"; it must be octal, as 0660",
                      options->mode);
  }
  if ((size_t)snprintf(text, sizeof(text), "unix:%s", options->socket) >= sizeof(text)) {
    return errmsg_set(err, STATUS_CONFIG, "admin.socket: the path is too long");
  }
  services->admin_fd = inherit_take(&control->changeover.inherited, INHERIT_ADMIN, "admin",
                                    options->socket, &is_foreign);
  if (services->admin_fd < 0) {
    TRY(address_parse(&address, text, err));
    TRY(address_listen(&services->admin_fd, &address, false, (unsigned)mode, err));
  }
out:
  return st;
}

static enum status bind_metrics(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct services *services = &control->services;
  const char *listen = control->start_options.metrics.listen;
  struct address address = {0};
  bool is_foreign = false;
  if (listen != NULL) {
    services->metrics_fd = inherit_take(&control->changeover.inherited, INHERIT_METRICS, "metrics",
                                        listen, &is_foreign);
  }
  if (listen != NULL && services->metrics_fd < 0) {
    TRY(address_parse(&address, listen, err));
    TRY(address_listen(&services->metrics_fd, &address, false, 0, err));
  }
out:
  return st;
}

enum status services_bind(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  TRY(bind_admin(control, err));
  TRY(bind_metrics(control, err));
out:
  return st;
}

// --- servers -----------------------------------------------------------------------------

static void on_metrics(void *arg, struct http_request *request) {
  struct control *control = arg;
  struct metrics_text text = {0};
  report_write_metrics(control, &text);
  if (control->store == NULL) {
    state_file_write_metrics(control->state_file, &text);
  }
  http_reply_metrics(request, &text);
}

static void put_refused(struct metrics_text *text, const char *name, const char *service,
                        const struct http_server *server) {
  const struct http_server_stats *stats = server == NULL ? NULL : http_server_stats(server);
  if (stats == NULL) {
    return;
  }
  const struct {
    const char *reason;
    uint64_t num;
  } rows[] = {
      {"connections", atomic_load_explicit(&stats->num_refused, memory_order_relaxed)},
      {"malformed", atomic_load_explicit(&stats->num_malformed, memory_order_relaxed)},
      {"too_large", atomic_load_explicit(&stats->num_too_large, memory_order_relaxed)},
      {"timeout", atomic_load_explicit(&stats->num_timeouts, memory_order_relaxed)},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    metrics_sample(text, name, (double)rows[i].num, "service", service, "reason", rows[i].reason,
                   NULL);
  }
}

void services_write_metrics(const struct services *services, struct metrics_text *text) {
  const char *name = "deputy_proxy_http_refused_total";
  metrics_family(text, name, METRIC_COUNTER,
                 "Connections and requests that admin API and metrics refused, by reason.");
  put_refused(text, name, "admin", services->admin == NULL ? NULL : admin_server(services->admin));
  put_refused(text, name, "metrics", services->metrics);
}

static const struct http_route metrics_routes[] = {{"GET", "/metrics", on_metrics}, {0}};

static enum status start_admin(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct services *services = &control->services;
  if (services->admin_fd < 0) {
    return STATUS_OK;
  }
  services->admin_host = admin_host_of(control);
  TRY(admin_new(&services->admin, control->loop, &services->admin_host, err));
out:
  return st;
}

static enum status start_metrics(struct control *control) {
  enum status st = STATUS_OK;
  struct services *services = &control->services;
  const struct http_server_config config = {
      .routes = metrics_routes,
      .arg = control,
      .max_connections = METRICS_MAX_CONNECTIONS,
  };
  if (services->metrics_fd < 0) {
    return STATUS_OK;
  }
  TRY(http_server_new(&services->metrics, control->loop, &config));
out:
  return st;
}

enum status services_start(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  TRY(start_admin(control, err));
  TRY(start_metrics(control));
out:
  return st;
}

enum status services_open(struct control *control, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct services *services = &control->services;
  if (services->admin != NULL) {
    services->admin_kept_fd = fcntl(services->admin_fd, F_DUPFD_CLOEXEC, 3);
    TRY(admin_listen(services->admin, &services->admin_fd, err));
  }
  if (services->metrics != NULL) {
    services->metrics_kept_fd = fcntl(services->metrics_fd, F_DUPFD_CLOEXEC, 3);
    TRY(http_server_listen(services->metrics, &services->metrics_fd, err));
  }
out:
  return st;
}

// --- end ---------------------------------------------------------------------------------

static void on_drained(void *arg) { (void)arg; }

void services_stop(struct services *services) {
  close_fd(&services->admin_kept_fd);
  close_fd(&services->metrics_kept_fd);
  if (services->admin != NULL) {
    admin_stop(services->admin);
  }
  if (services->metrics != NULL) {
    http_server_drain(services->metrics, on_drained, NULL);
  }
}

void services_cleanup(struct services *services) {
  admin_free(services->admin);
  http_server_free(services->metrics);
  close_fd(&services->admin_fd);
  close_fd(&services->metrics_fd);
  close_fd(&services->admin_kept_fd);
  close_fd(&services->metrics_kept_fd);
}
