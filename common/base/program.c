// SPDX-License-Identifier: Apache-2.0
#include "common/base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "version.h"

// --- the command line --------------------------------------------------------

static const char takeover_help[] =
    "      --takeover       take the listening sockets of the one that serves, then its place\n"
    "      --takeover-if-running\n"
    "                       the same if one serves, else a usual start\n"
    "      --background     go on in the background; the command ends when that one serves\n";

static void print_help(const struct program *program) {
  (void)printf(
      "%s: %s\n"
      "\n"
      "usage: %s [options]\n"
      "\n"
      "  -c, --config FILE    configuration (default %s)\n"
      "      --check-config   read the configuration and what it names, then exit:\n"
      "                       0 when it is good; with the reason 2 when it is not,\n"
      "                       1 when a file that it names is not\n"
      "      --log-level L    error, warn, info or debug (default info)\n"
      "      --config-reference\n"
      "                       print every option with type, range, default and effect\n"
      "%s"
      "  -h, --help           print this\n"
      "  -V, --version        print the version\n"
      "\n"
      "docs/%s.md has the rest.\n",
      program->name, program->summary, program->name, program->default_config,
      program->may_take_over ? takeover_help : "", program->name);
}

enum flag {
  FLAG_CONFIG,
  FLAG_LOG_LEVEL,
  FLAG_CHECK,
  FLAG_REFERENCE,
  FLAG_HELP,
  FLAG_VERSION,
  // Only where may_take_over.
  FLAG_TAKEOVER,
  FLAG_TAKEOVER_IF_RUNNING,
  FLAG_BACKGROUND,
};

static const struct flag_row {
  const char *name;
  const char *short_name;
  enum flag flag;
  bool has_value;
} flags[] = {
    {"--config", "-c", FLAG_CONFIG, true},
    {"--log-level", NULL, FLAG_LOG_LEVEL, true},
    {"--check-config", NULL, FLAG_CHECK, false},
    {"--config-reference", NULL, FLAG_REFERENCE, false},
    {"--help", "-h", FLAG_HELP, false},
    {"--version", "-V", FLAG_VERSION, false},
    {"--takeover", NULL, FLAG_TAKEOVER, false},
    {"--takeover-if-running", NULL, FLAG_TAKEOVER_IF_RUNNING, false},
    {"--background", NULL, FLAG_BACKGROUND, false},
};

// Finds the row of "--name", "--name=value" or "-n". *out_value points into the
// argument after "=", or is NULL.
static const struct flag_row *find_flag(const char *arg, const char **out_value) {
  const char *equals = strchr(arg, '=');
  size_t len = equals == NULL ? strlen(arg) : (size_t)(equals - arg);
  *out_value = equals == NULL ? NULL : equals + 1;
  for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
    const struct flag_row *row = &flags[i];
    if ((strlen(row->name) == len && strncmp(arg, row->name, len) == 0) ||
        (row->short_name != NULL && strcmp(arg, row->short_name) == 0)) {
      return row;
    }
  }
  return NULL;
}

static enum status apply_flag(struct program_args *out, const struct program *program,
                              enum flag flag, const char *value, struct errmsg *err) {
  switch (flag) {
    case FLAG_CONFIG:
      out->config_path = value;
      break;
    case FLAG_LOG_LEVEL:
      if (log_level_from_name(&out->log_level, value) != STATUS_OK) {
        return errmsg_set(err, STATUS_CONFIG,
                          "--log-level is \"%s\"; it may be error, warn, info or debug", value);
      }
      break;
    case FLAG_CHECK:
      out->is_check_only = true;
      break;
    case FLAG_REFERENCE:
      config_print_reference(stdout, program->options);
      out->is_done = true;
      break;
    case FLAG_HELP:
      print_help(program);
      out->is_done = true;
      break;
    case FLAG_VERSION:
      (void)printf("%s %s\n", program->name, DEPUTY_VERSION);
      if (program->about != NULL) {
        (void)printf("%s\n", program->about());
      }
      out->is_done = true;
      break;
    case FLAG_TAKEOVER:
      out->takeover = PROGRAM_TAKEOVER_MUST;
      break;
    case FLAG_TAKEOVER_IF_RUNNING:
      out->takeover = PROGRAM_TAKEOVER_IF_RUNNING;
      break;
    case FLAG_BACKGROUND:
      out->is_background = true;
      break;
  }
  return STATUS_OK;
}

enum status program_parse_args(struct program_args *out, const struct program *program, int argc,
                               char **argv, struct errmsg *err) {
  *out = (struct program_args){.config_path = program->default_config, .log_level = LOG_LEVEL_INFO};
  for (int i = 1; i < argc && !out->is_done; i++) {
    const char *value = NULL;
    const struct flag_row *row = find_flag(argv[i], &value);
    enum status st = STATUS_OK;
    if (row == NULL || (row->flag >= FLAG_TAKEOVER && !program->may_take_over)) {
      return errmsg_set(err, STATUS_CONFIG, "unknown option \"%s\"; see %s --help", argv[i],
                        program->name);
    }
    if (!row->has_value && value != NULL) {
      return errmsg_set(err, STATUS_CONFIG, "%s takes no value; see %s --help", row->name,
                        program->name);
    }
    if (row->has_value && value == NULL) {
      i += 1;
      value = i < argc ? argv[i] : NULL;
    }
    if (row->has_value && (value == NULL || value[0] == '\0')) {
      return errmsg_set(err, STATUS_CONFIG, "%s needs a value; see %s --help", row->name,
                        program->name);
    }
    st = apply_flag(out, program, row->flag, value, err);
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

int program_fail(const struct program *program, enum status st, const struct errmsg *err) {
  const char *text = err != NULL && err->text[0] != '\0' ? err->text : status_name(st);
  (void)fflush(stdout);
  (void)fprintf(stderr, "%s: %s\n", program->name, text);
  return st == STATUS_CONFIG ? 2 : 1;
}

// --- the background ----------------------------------------------------------

static int ready_fd = -1;  // of the process that waits; -1: nobody does

static _Noreturn void wait_for_child(pid_t child, int fd) {
  char byte = 0;
  int state = 0;
  ssize_t len = 0;
  do {
    len = read(fd, &byte, 1);
  } while (len < 0 && errno == EINTR);
  if (len == 1) {
    _exit(0);
  }
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  _exit(WIFEXITED(state) && WEXITSTATUS(state) != 0 ? WEXITSTATUS(state) : 1);
}

enum status program_go_background(struct errmsg *err) {
  int fds[2] = {-1, -1};
  pid_t child = -1;
  if (pipe2(fds, O_CLOEXEC) == 0) {
    child = fork();
  }
  if (child < 0) {
    return errmsg_set(err, STATUS_SYSTEM, "--background: %s", strerror(errno));
  }
  if (child > 0) {
    (void)close(fds[1]);
    wait_for_child(child, fds[0]);
  }
  (void)close(fds[0]);
  ready_fd = fds[1];
  return STATUS_OK;
}

void program_is_ready(void) {
  if (ready_fd >= 0) {
    ssize_t written = 0;
    do {
      written = write(ready_fd, "r", 1);
    } while (written < 0 && errno == EINTR);
    (void)close(ready_fd);
    ready_fd = -1;
  }
}

// --- the process -------------------------------------------------------------

// Without this a file opened later could become descriptor 2, and a line meant
// for a person would be written into it.
static enum status open_standard_descriptors(struct errmsg *err) {
  int fd = -1;
  do {
    fd = open("/dev/null", O_RDWR);
    if (fd < 0) {
      return errmsg_set(err, STATUS_SYSTEM, "/dev/null cannot be opened: %s", strerror(errno));
    }
  } while (fd <= STDERR_FILENO);
  (void)close(fd);
  return STATUS_OK;
}

enum status program_harden(struct errmsg *err) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  const struct rlimit none = {0};
  enum status st = open_standard_descriptors(err);

  if (st != STATUS_OK) {
    return st;
  }
  if (setrlimit(RLIMIT_CORE, &none) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "core dumps cannot be switched off: %s", strerror(errno));
  }
  // Also keeps other processes of the same user from attaching.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "the process cannot be made undumpable: %s",
                      strerror(errno));
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "new privileges cannot be given up: %s", strerror(errno));
  }
  (void)umask(077);
  if (sigaction(SIGPIPE, &ignore, NULL) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "SIGPIPE cannot be ignored: %s", strerror(errno));
  }
  // A file that may not grow is an error to tell, as a disk that is full; not a signal to die by.
  if (sigaction(SIGXFSZ, &ignore, NULL) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "SIGXFSZ cannot be ignored: %s", strerror(errno));
  }
  return STATUS_OK;
}

int64_t program_raise_nofile(void) {
  struct rlimit limit = {0};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return 1024;  // what every system allows
  }
  if (limit.rlim_cur < limit.rlim_max) {
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      return (int64_t)before;
    }
  }
  return limit.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
}
