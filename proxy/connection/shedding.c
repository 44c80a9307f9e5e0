// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/shedding.h"

#define PREFIX "deputy_proxy_"

// What is now, over all workers. Sums of counters that go on meanwhile.
struct now {
  int64_t num_handshakes;
  int64_t num_busy;  // workers
  int64_t memory;    // -1: not known
  bool is_memory_over;
};

static int64_t difference(const struct counter *begun, const struct counter *ended) {
  // The later event first: never more ended than begun.
  uint64_t num_ended = counter_get(ended);
  return (int64_t)(counter_get(begun) - num_ended);
}

static struct now look(const struct shedding_source *source) {
  struct now now = {.memory = memory_watch_bytes(source->memory),
                    .is_memory_over = memory_watch_is_over(source->memory)};
  for (size_t i = 0; i < source->num_workers; i++) {
    const struct worker_counters *counters = &source->workers[i]->counters;
    now.num_handshakes += difference(&counters->handshakes_begun, &counters->handshakes_ended);
    now.num_busy += difference(&counters->busy_begun, &counters->busy_ended);
  }
  return now;
}

void shedding_write_metrics(const struct shedding_source *source, struct metrics_text *text) {
  const struct histogram *lags[OPTIONS_MAX_WORKERS];
  const struct now now = look(source);
  const char *name = PREFIX "shedding";

  metrics_gauge(text, PREFIX "handshakes_under_way", "Handshakes now, those included that wait.",
                (double)now.num_handshakes);
  metrics_family(text, name, METRIC_GAUGE,
                 "Whether new connections are being refused: workers that are busy with "
                 "handshakes; 1 while memory is above its ceiling.");
  metrics_sample(text, name, (double)now.num_busy, "reason", refusal_name(REFUSAL_BUSY), NULL);
  metrics_sample(text, name, now.is_memory_over ? 1 : 0, "reason",
                 refusal_name(REFUSAL_MEMORY_CEILING), NULL);
  if (now.memory >= 0) {
    metrics_gauge(text, PREFIX "memory_bytes",
                  "Memory of the process that limits.memory counts: resident, without files.",
                  (double)now.memory);
  }
  name = PREFIX "queue_seconds";
  metrics_family(text, name, METRIC_HISTOGRAM,
                 "How long what is ready waits for a worker, sampled while clients come.");
  for (size_t i = 0; i < source->num_workers; i++) {
    lags[i] = &source->workers[i]->counters.lag;
  }
  metrics_histogram(text, name, NULL, NULL, lags, source->num_workers);
}

void shedding_add_status(const struct shedding_source *source, json_t *object) {
  const struct now now = look(source);
  json_t *refused = json_object();
  for (unsigned i = 0; i < REFUSAL_NUM; i++) {
    uint64_t num = 0;
    for (size_t w = 0; w < source->num_workers; w++) {
      num += counter_get(&source->workers[w]->counters.refused[i]);
    }
    (void)json_object_set_new(refused, refusal_name((enum refusal)i),
                              json_integer((json_int_t)num));
  }
  (void)json_object_set_new(object, "handshakes_under_way",
                            json_integer((json_int_t)now.num_handshakes));
  (void)json_object_set_new(object, "shedding",
                            json_pack("{s:I,s:b}", "busy_workers", (json_int_t)now.num_busy,
                                      "memory_ceiling", (int)now.is_memory_over));
  (void)json_object_set_new(object, "refused", refused);
}
