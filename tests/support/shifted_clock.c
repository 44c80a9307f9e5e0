// SPDX-License-Identifier: Apache-2.0
// shifted_clock: a wall clock that a test sets back and forth in a running program, by
// LD_PRELOAD. SHIFTED_CLOCK names a file of eight bytes, the seconds to be added; it is
// mapped before main, so that no sandbox is asked later on. The monotonic clock stays
// what it is, as when somebody sets a machine's time.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift_s;

__attribute__((constructor)) static void map_file(void) {
  const char *path = getenv("SHIFTED_CLOCK");
  int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  void *at = MAP_FAILED;
  if (fd < 0) {
    return;
  }
  at = mmap(NULL, sizeof(*shift_s), PROT_READ, MAP_SHARED, fd, 0);
  (void)close(fd);
  if (at != MAP_FAILED) {
    shift_s = at;
  }
}

static int64_t shift(void) { return shift_s == NULL ? 0 : *shift_s; }

int clock_gettime(clockid_t clock, struct timespec *out) {
  static int (*real)(clockid_t clock, struct timespec * out);
  int result = 0;
  if (real == NULL) {
    // POSIX lets a function come out of dlsym.
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  }
  result = real != NULL ? real(clock, out) : (int)syscall(SYS_clock_gettime, clock, out);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    out->tv_sec += shift();
  }
  return result;
}

time_t time(time_t *out) {
  struct timespec now;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) {
    *out = now.tv_sec;
  }
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec now;
  (void)zone;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return 0;
}
