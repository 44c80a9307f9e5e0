// SPDX-License-Identifier: Apache-2.0
// deputy-netdelay: distance, where the kernel has no netem. Holds each packet that a
// rule of iptables puts in one of its queues for a set time, then lets it go, in order.
//
//   deputy-netdelay QUEUE:DELAY_US [QUEUE:DELAY_US ...]
//
// Prints "ready"; then each line "QUEUE DELAY_US" on standard input changes a delay
// and is answered by "ok" or "bad". Ends when standard input does, so that it never
// outlives who started it; packets still held are then let go by the kernel.
//
// The rule belongs at the receiver (mangle, PREROUTING): packets held at the sender
// count against TCP's limit of bytes below the socket, which would slow it down.
#include <arpa/inet.h>
#include <errno.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_QUEUES 8
#define MAX_HELD 65536U  // packets of one queue; those after them are dropped
#define MAX_DELAY_US 10000000L
#define SOCKET_BUFFER_LEN (16U << 20)
#define LINE_LEN 64

struct held {
  uint32_t id;
  int64_t due_ns;
};

struct queue {
  struct nfq_q_handle *handle;
  unsigned long number;
  int64_t delay_ns;
  struct held *ring;
  unsigned head;  // oldest; both run free, the ring takes them modulo MAX_HELD
  unsigned tail;
};

static struct queue queues[MAX_QUEUES];
static size_t num_queues;

static int64_t now_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int on_packet(struct nfq_q_handle *handle, struct nfgenmsg *message, struct nfq_data *data,
                     void *arg) {
  struct queue *q = arg;
  const struct nfqnl_msg_packet_hdr *header = nfq_get_msg_packet_hdr(data);
  (void)message;
  if (header == NULL) {
    return -1;
  }
  const uint32_t id = ntohl(header->packet_id);
  if (q->tail - q->head == MAX_HELD) {
    return nfq_set_verdict(handle, id, NF_DROP, 0, NULL);
  }
  int64_t due_ns = now_ns() + q->delay_ns;
  if (q->tail != q->head && due_ns < q->ring[(q->tail - 1) % MAX_HELD].due_ns) {
    due_ns = q->ring[(q->tail - 1) % MAX_HELD].due_ns;  // a delay made shorter reorders nothing
  }
  q->ring[q->tail % MAX_HELD] = (struct held){.id = id, .due_ns = due_ns};
  q->tail += 1;
  return 0;
}

static void release_due(void) {
  for (size_t i = 0; i < num_queues; i++) {
    struct queue *q = &queues[i];
    while (q->head != q->tail && q->ring[q->head % MAX_HELD].due_ns <= now_ns()) {
      (void)nfq_set_verdict(q->handle, q->ring[q->head % MAX_HELD].id, NF_ACCEPT, 0, NULL);
      q->head += 1;
    }
  }
}

static void arm(int timer) {
  int64_t next_ns = 0;
  for (size_t i = 0; i < num_queues; i++) {
    const struct queue *q = &queues[i];
    if (q->head != q->tail) {
      const int64_t due_ns = q->ring[q->head % MAX_HELD].due_ns;
      next_ns = next_ns == 0 || due_ns < next_ns ? due_ns : next_ns;
    }
  }
  const struct itimerspec when = {
      .it_value = {.tv_sec = next_ns / 1000000000, .tv_nsec = next_ns % 1000000000}};
  (void)timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

// Two numbers with `separator` between them and nothing after.
static bool parse(unsigned long *number, int64_t *delay_ns, const char *text, char separator) {
  char *end = NULL;
  errno = 0;
  *number = strtoul(text, &end, 10);
  if (end == text || *end != separator || errno != 0 || *number > UINT16_MAX) {
    return false;
  }
  const char *second = end + 1;
  const long us = strtol(second, &end, 10);
  *delay_ns = us * 1000;
  return end != second && *end == '\0' && errno == 0 && us >= 0 && us <= MAX_DELAY_US;
}

static void obey(const char *line) {
  unsigned long number = 0;
  int64_t delay_ns = 0;
  bool is_done = false;
  if (parse(&number, &delay_ns, line, ' ')) {
    for (size_t i = 0; i < num_queues; i++) {
      if (queues[i].number == number) {
        queues[i].delay_ns = delay_ns;
        is_done = true;
      }
    }
  }
  (void)puts(is_done ? "ok" : "bad");
  (void)fflush(stdout);
}

// Reads commands; false at their end.
static bool read_commands(void) {
  static char line[LINE_LEN];
  static size_t len;
  char chunk[LINE_LEN];
  const ssize_t num = read(STDIN_FILENO, chunk, sizeof(chunk));
  if (num <= 0) {
    return num < 0 && errno == EINTR;
  }
  for (ssize_t i = 0; i < num; i++) {
    if (chunk[i] == '\n') {
      line[len] = '\0';
      obey(line);
      len = 0;
    } else if (len < sizeof(line) - 1) {
      line[len++] = chunk[i];
    }
  }
  return true;
}

static bool open_queue(struct nfq_handle *library, const char *text) {
  struct queue *q = &queues[num_queues];
  if (!parse(&q->number, &q->delay_ns, text, ':')) {
    (void)fprintf(stderr, "deputy-netdelay: error: \"%s\" is not QUEUE:DELAY_US\n", text);
    return false;
  }
  q->ring = calloc(MAX_HELD, sizeof(*q->ring));
  q->handle = q->ring == NULL ? NULL : nfq_create_queue(library, (uint16_t)q->number, on_packet, q);
  if (q->handle == NULL) {
    (void)fprintf(stderr, "deputy-netdelay: error: queue %lu: %s\n", q->number, strerror(errno));
    return false;
  }
  (void)nfq_set_mode(q->handle, NFQNL_COPY_META, 0);
  (void)nfq_set_queue_maxlen(q->handle, MAX_HELD);
  num_queues += 1;
  return true;
}

static int serve(struct nfq_handle *library) {
  static char buffer[65536] __attribute__((aligned));
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct pollfd polled[] = {{.fd = nfq_fd(library), .events = POLLIN},
                            {.fd = timer, .events = POLLIN},
                            {.fd = STDIN_FILENO, .events = POLLIN}};
  bool goes_on = timer >= 0;
  while (goes_on) {
    arm(timer);
    if (poll(polled, 3, -1) < 0 && errno != EINTR) {
      break;
    }
    if ((polled[0].revents & POLLIN) != 0) {
      const ssize_t len = recv(polled[0].fd, buffer, sizeof(buffer), 0);
      if (len > 0) {
        (void)nfq_handle_packet(library, buffer, (int)len);
      }
    }
    release_due();
    if ((polled[2].revents & (POLLIN | POLLHUP)) != 0) {
      goes_on = read_commands();
    }
  }
  return timer >= 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc - 1 > MAX_QUEUES) {
    (void)fprintf(stderr, "usage: deputy-netdelay QUEUE:DELAY_US [...] (at most %d)\n", MAX_QUEUES);
    return 2;
  }
  // The kernel may otherwise bundle our timers within 50 us.
  (void)prctl(PR_SET_TIMERSLACK, 1UL);
  struct nfq_handle *library = nfq_open();
  if (library == NULL) {
    (void)fprintf(stderr, "deputy-netdelay: error: NFQUEUE: %s\n", strerror(errno));
    return 1;
  }
  (void)nfnl_rcvbufsiz(nfq_nfnlh(library), SOCKET_BUFFER_LEN);
  for (int i = 1; i < argc; i++) {
    if (!open_queue(library, argv[i])) {
      return 1;
    }
  }
  (void)puts("ready");
  (void)fflush(stdout);
  return serve(library);
}
