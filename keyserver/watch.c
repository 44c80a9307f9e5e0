// SPDX-License-Identifier: Apache-2.0
#include "keyserver/watch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"

#define RETRY_MS 2000  // a folder that is away is looked for so often
#define US_PER_S INT64_C(1000000)

#define LEAVES (IN_MOVED_FROM | IN_DELETE)
#define COMES (IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)
#define FOLDER_GONE (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)

struct place {
  char *path;
  uint32_t mask;
  int descriptor;  // inotify's; -1: not watched at present
  bool is_reported;
};

struct watch {
  struct loop *loop;
  bool (*is_wanted)(const char *name);
  void (*changed)(void *arg);
  void *arg;
  int fd;
  struct io io;
  struct place *places;
  size_t num_places;
  int64_t settle_ms;
  int64_t first_ms;  // of the changes that are settling
  struct timer settle;
  struct timer retry;
};

// --- coming to rest --------------------------------------------------------------------

static void on_settled(void *arg) {
  struct watch *watch = arg;
  watch->changed(watch->arg);
}

// note_change begins the quiet time anew, but not for ever.
static void note_change(struct watch *watch) {
  const int64_t now_ms = loop_now_ms(watch->loop);
  int64_t left_ms = 0;

  if (!timer_is_armed(&watch->settle)) {
    watch->first_ms = now_ms;
  }
  left_ms = watch->first_ms + WATCH_MAX_SETTLES * watch->settle_ms - now_ms;
  if (left_ms > watch->settle_ms) {
    left_ms = watch->settle_ms;
  }
  timer_arm_ms(&watch->settle, left_ms > 0 ? left_ms : 0);
}

// --- folders ------------------------------------------------------------------------------

// begin watches the folder that has this path now: it may be another than before, and
// it may be that of another path as well, which wants its own events.
static bool begin(struct watch *watch, struct place *place) {
  place->descriptor =
      inotify_add_watch(watch->fd, place->path,
                        place->mask | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_MASK_ADD);
  if (place->descriptor >= 0) {
    place->is_reported = false;
    return true;
  }
  if (!place->is_reported) {
    log_warn(0, "folder_not_watched", "folder=%s why=\"%s\": tried again, SIGHUP loads it anyway",
             place->path, strerror(errno));
    place->is_reported = true;
  }
  timer_arm_ms(&watch->retry, RETRY_MS);
  return false;
}

static void on_retry(void *arg) {
  struct watch *watch = arg;

  for (size_t i = 0; i < watch->num_places; i++) {
    struct place *place = &watch->places[i];
    if (place->descriptor < 0 && begin(watch, place)) {
      log_info(0, "folder_watched", "folder=%s", place->path);
      note_change(watch);
    }
  }
}

static bool is_used(const struct watch *watch, int descriptor) {
  for (size_t i = 0; i < watch->num_places; i++) {
    if (watch->places[i].descriptor == descriptor) {
      return true;
    }
  }
  return false;
}

static void free_places(struct place *places, size_t num) {
  for (size_t i = 0; i < num; i++) {
    free(places[i].path);
  }
  free(places);
}

static bool is_newer(const char *path, int64_t since_us) {
  struct stat about = {0};
  return since_us != 0 && stat(path, &about) == 0 &&
         about.st_mtim.tv_sec * US_PER_S + about.st_mtim.tv_nsec / 1000 >= since_us;
}

enum status watch_set(struct watch *watch, const struct watch_folder *folders, size_t num,
                      int64_t settle_ms, int64_t since_us) {
  struct place *old = watch->places;
  const size_t num_old = watch->num_places;
  struct place *places = calloc(num + 1, sizeof(struct place));

  if (places == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num; i++) {
    places[i].path = strdup(folders[i].path);
    places[i].mask = folders[i].is_removal_only ? LEAVES : LEAVES | COMES;
    places[i].descriptor = -1;
    if (places[i].path == NULL) {
      free_places(places, i);
      return STATUS_MEMORY;
    }
  }
  watch->places = places;
  watch->num_places = num;
  watch->settle_ms = settle_ms;
  for (size_t i = 0; i < num; i++) {
    // A folder that was watched before keeps its descriptor, and its events.
    if (begin(watch, &places[i]) && is_newer(places[i].path, since_us)) {
      note_change(watch);
    }
  }
  for (size_t i = 0; i < num_old; i++) {
    if (old[i].descriptor >= 0 && !is_used(watch, old[i].descriptor)) {
      (void)inotify_rm_watch(watch->fd, old[i].descriptor);  // may be gone by itself
    }
  }
  free_places(old, num_old);
  if (num == 0) {
    timer_cancel(&watch->settle);
    timer_cancel(&watch->retry);
  }
  return STATUS_OK;
}

// --- events -----------------------------------------------------------------------------------

// lose forgets a folder that was removed, renamed or unmounted: its path is
// looked for, and may be there again.
static void lose(struct watch *watch, int descriptor, uint32_t mask) {
  for (size_t i = 0; i < watch->num_places; i++) {
    if (watch->places[i].descriptor == descriptor) {
      watch->places[i].descriptor = -1;
      timer_arm_ms(&watch->retry, watch->settle_ms < RETRY_MS ? watch->settle_ms : RETRY_MS);
      note_change(watch);
    }
  }
  if ((mask & IN_MOVE_SELF) != 0) {
    (void)inotify_rm_watch(watch->fd, descriptor);  // it would follow the folder
  }
}

// A name with one dot in front is hidden: an editor's or our own unfinished file. With
// two it may be what the others are links to, and changes them all.
static bool counts(const struct watch *watch, const char *name) {
  if (name[0] == '.') {
    return name[1] == '.';
  }
  return watch->is_wanted(name);
}

static void on_event(struct watch *watch, const struct inotify_event *event) {
  const bool is_lost = (event->mask & IN_Q_OVERFLOW) != 0;  // some events were too many

  if (!is_lost && !is_used(watch, event->wd)) {
    return;  // left over from a folder that is not watched any more
  }
  if ((event->mask & FOLDER_GONE) != 0) {
    lose(watch, event->wd, event->mask);
  } else if (is_lost || (event->len > 0 && counts(watch, event->name))) {
    note_change(watch);
  }
}

static void on_readable(void *arg, unsigned ready) {
  struct watch *watch = arg;
  _Alignas(struct inotify_event) char buffer[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
  ssize_t len = 0;

  (void)ready;
  while ((len = read(watch->fd, buffer, sizeof buffer)) > 0 || (len < 0 && errno == EINTR)) {
    for (ssize_t at = 0; at < len;) {
      const struct inotify_event *event = (const void *)(buffer + at);
      on_event(watch, event);
      at += (ssize_t)(sizeof *event + event->len);
    }
  }
}

// --- life ---------------------------------------------------------------------------------------

enum status watch_new(struct watch **out, struct loop *loop, bool (*is_wanted)(const char *name),
                      void (*changed)(void *arg), void *arg) {
  struct watch *watch = calloc(1, sizeof *watch);
  enum status st = STATUS_OK;

  *out = NULL;
  if (watch == NULL) {
    return STATUS_MEMORY;
  }
  watch->loop = loop;
  watch->is_wanted = is_wanted;
  watch->changed = changed;
  watch->arg = arg;
  watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (watch->fd < 0) {
    free(watch);
    return STATUS_SYSTEM;
  }
  TRY(timer_init(&watch->settle, loop, on_settled, watch));
  TRY(timer_init(&watch->retry, loop, on_retry, watch));
  TRY(io_init(&watch->io, loop, watch->fd, on_readable, watch));
  *out = watch;
  watch = NULL;

out:
  watch_free(watch);
  return st;
}

void watch_free(struct watch *watch) {
  if (watch == NULL) {
    return;
  }
  free_places(watch->places, watch->num_places);
  timer_cleanup(&watch->settle);
  timer_cleanup(&watch->retry);
  io_cleanup(&watch->io);
  close(watch->fd);
  free(watch);
}
