// SPDX-License-Identifier: Apache-2.0
// counters: what one worker has seen. Written by its thread alone with
// counter_add_own; metrics.c adds the workers up.
#ifndef DEPUTY_PROXY_COUNTERS_H_
#define DEPUTY_PROXY_COUNTERS_H_

#include "common/base/metrics.h"
#include "common/tls/compression.h"
#include "common/tls/credential.h"
#include "common/tls/trust.h"
#include "proxy/connection/failure.h"
#include "proxy/connection/fault.h"

// What authenticated a handshake.
enum source { SOURCE_DC, SOURCE_CERTIFICATE, SOURCE_RESUMED, SOURCE_NUM };

enum version { VERSION_12, VERSION_13, VERSION_NUM };

// Why an accepted connection was closed at once.
enum refusal {
  REFUSAL_LIMIT,        // limits.connections
  REFUSAL_DESCRIPTORS,  // accept: no descriptors left (a try, not a connection)
  REFUSAL_MEMORY,
  REFUSAL_MEMORY_CEILING,       // limits.memory
  REFUSAL_HANDSHAKES,           // limits.handshakes, and none to be displaced
  REFUSAL_BUSY,                 // limits.handshake_lag, handshake_share
  REFUSAL_ADDRESS_CONNECTIONS,  // limits.address_connections
  REFUSAL_ADDRESS_RATE,         // limits.address_rate
  REFUSAL_NUM,
};

// How a connection ended.
enum outcome {
  OUTCOME_DONE,             // both directions ended in order
  OUTCOME_TRUNCATED,        // the client left without close_notify
  OUTCOME_HANDSHAKE,        // see the failure
  OUTCOME_ORIGIN_REFUSED,   // no connection to any origin that was tried
  OUTCOME_ORIGIN_TIMEOUT,   // the same: the last one did not answer in time
  OUTCOME_ORIGIN_NONE,      // no origin of the pool is in service
  OUTCOME_ORIGIN_FULL,      // those that are have as many connections as they may
  OUTCOME_ORIGIN_RESET,     // the origin broke off
  OUTCOME_CLIENT_RESET,     // the client broke off
  OUTCOME_CLIENT_PROTOCOL,  // the client broke the protocol after the handshake
  OUTCOME_IDLE,             // no byte for too long
  OUTCOME_DRAINED,          // ended by us, as the proxy stops
  OUTCOME_MEMORY,
  OUTCOME_NUM,
};

#define COUNTERS_NUM_ALERTS 128

struct worker_counters {
  struct counter accepted;
  struct counter closed;
  struct counter refused[REFUSAL_NUM];
  struct counter handshakes_begun;  // connections
  struct counter handshakes_ended;  // the difference is under way
  struct counter busy_begun;        // admission.h
  struct counter busy_ended;        // the difference is 1: the worker is busy
  struct histogram lag;             // of pulses
  struct counter handshakes[SOURCE_NUM][VERSION_NUM];
  struct counter failures[FAILURE_NUM];
  struct counter faults[FAULT_NUM];            // OUTCOME_CLIENT_PROTOCOL, told apart
  struct counter alerts[COUNTERS_NUM_ALERTS];  // fatal, received in a handshake
  struct counter dc_rejected;                  // illegal_parameter after a DC was sent
  struct counter guards[TLS_GUARD_NUM];
  struct counter clients_refused[TLS_REFUSAL_NUM];      // for the certificate they showed
  struct counter compressed[TLS_COMPRESSION_NUM];       // Certificate messages
  struct counter compressed_anew[TLS_COMPRESSION_NUM];  // those whose form was not there yet
  struct counter compressed_saved;                      // bytes
  struct counter ech_accepted;  // handshakes whose ClientHello was encrypted
  struct counter last_resort;
  struct counter lookups_waited;  // handshakes that waited for a name of the store
  struct counter lookups_shed;    // as too many names were being waited for
  struct counter states_read;     // handshakes that read the store's states themselves
  struct counter states_unread;   // the same, and could not
  struct counter outcomes[OUTCOME_NUM];
  struct counter bytes_up;     // plaintext, client to origin
  struct counter bytes_down;   // plaintext, origin to client
  struct counter signs_begun;  // handshakes that asked a key server
  struct counter signs_ended;  // the difference waits
  struct histogram handshake_time[SOURCE_NUM];
  struct histogram origin_time;  // of connecting to one
};

static inline void count(struct counter *counter) { counter_add_own(counter, 1); }

const char *source_name(enum source source);
const char *version_name(enum version version);
const char *refusal_name(enum refusal refusal);
const char *outcome_name(enum outcome outcome);

#endif  // DEPUTY_PROXY_COUNTERS_H_
