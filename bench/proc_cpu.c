// SPDX-License-Identifier: Apache-2.0
#include "bench/proc_cpu.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_LEN 96
#define NS_PER_S 1000000000LL

static bool read_text(const char *path, char *out, size_t max) {
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    return false;
  }
  const size_t len = fread(out, 1, max - 1, file);
  out[len] = '\0';
  (void)fclose(file);
  return len > 0;
}

// Sums the first number, time on a CPU in ns, of each thread. False: no schedstat.
static bool read_schedstat(int64_t *out_ns, pid_t pid) {
  char path[PATH_LEN];
  char text[128];
  bool is_found = false;
  (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
  DIR *folder = opendir(path);
  if (folder == NULL) {
    return false;
  }
  const struct dirent *entry = NULL;
  // Threads of glibc: one stream each, none shared.
  while ((entry = readdir(folder)) != NULL) {  // NOLINT(concurrency-mt-unsafe)
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, entry->d_name);
    if (entry->d_name[0] != '.' && read_text(path, text, sizeof(text))) {
      *out_ns += strtoll(text, NULL, 10);
      is_found = true;
    }
  }
  (void)closedir(folder);
  return is_found;
}

// Fields 14 and 15, counted behind the name, which may hold blanks and brackets.
static void read_stat(int64_t *out_ns, pid_t pid) {
  char path[PATH_LEN];
  char text[1024];
  (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
  const char *p = read_text(path, text, sizeof(text)) ? strrchr(text, ')') : NULL;
  for (int field = 2; p != NULL && field < 14; field++) {
    p = strchr(p + 1, ' ');
  }
  if (p != NULL) {
    char *end = NULL;
    const int64_t user = strtoll(p, &end, 10);
    *out_ns += (user + strtoll(end, NULL, 10)) * (NS_PER_S / sysconf(_SC_CLK_TCK));
  }
}

int64_t proc_cpu_read_ns(const struct proc_cpu *p) {
  int64_t ns = 0;
  for (size_t i = 0; i < p->num; i++) {
    if (!read_schedstat(&ns, p->pids[i])) {
      read_stat(&ns, p->pids[i]);
    }
  }
  return ns;
}

enum status proc_cpu_parse(struct proc_cpu *out, const char *text, struct errmsg *err) {
  out->num = 0;
  while (true) {
    char path[PATH_LEN];
    char *end = NULL;
    errno = 0;
    const long pid = strtol(text, &end, 10);
    if (errno != 0 || end == text || pid <= 0 || pid > INT32_MAX || out->num == PROC_CPU_MAX_PIDS) {
      return errmsg_set(err, STATUS_CONFIG, "--server-pid wants process ids, as 123,124");
    }
    (void)snprintf(path, sizeof(path), "/proc/%ld", pid);
    if (access(path, F_OK) != 0) {
      return errmsg_set(err, STATUS_CONFIG, "--server-pid: there is no process %ld", pid);
    }
    out->pids[out->num++] = (pid_t)pid;
    if (*end == '\0') {
      return STATUS_OK;
    }
    if (*end != ',') {
      return errmsg_set(err, STATUS_CONFIG, "--server-pid wants process ids, as 123,124");
    }
    text = end + 1;
  }
}
