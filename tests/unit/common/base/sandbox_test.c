// SPDX-License-Identifier: Apache-2.0
// A sandbox is for good, so each attempt has a child of its own: it enters, tries
// one thing, and its exit code or the signal that ends it tells.
#include "common/base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/sandbox_internal.h"
#include "common/base/thread_turn.h"
#include "tests/unit/common/base/scratch.h"

#define ENTER_FAILED 99
#define THREAD_FAILED 98

static const struct sandbox_options by_default = {.mode = SANDBOX_AUTO};

// --- children ------------------------------------------------------------------------

// What a child does inside. It returns 0, or the errno of what it was refused.
typedef int attempt(const void *arg);

struct box {
  struct sandbox_spec spec;
  const struct sandbox_options *options;  // NULL: by_default
};

// try_in returns the child's exit code, or the negated signal that ended it.
static int try_in(struct box *box, attempt *fn, const void *arg) {
  int status = 0;
  const pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    const struct rlimit none = {0};
    struct errmsg err = {0};
    (void)setrlimit(RLIMIT_CORE, &none);
    if (sandbox_enter(&box->spec, box->options != NULL ? box->options : &by_default, &err) !=
        STATUS_OK) {
      (void)dprintf(STDERR_FILENO, "%s\n", err.text);
      _exit(ENTER_FAILED);
    }
    _exit(fn(arg));
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  sandbox_spec_cleanup(&box->spec);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int try_with(unsigned needs, attempt *fn, const void *arg) {
  struct box box = {.spec = {.needs = needs}};
  return try_in(&box, fn, arg);
}

static int has_both(const void *arg) {
  (void)arg;
  return sandbox_state()->has_seccomp && sandbox_state()->landlock_abi > 0 ? 0 : 1;
}

// The tests say what a kernel with both does.
static void skip_without_kernel(void) {
  if (try_with(0, has_both, NULL) != 0) {
    skip();
  }
}

// --- system calls ----------------------------------------------------------------------

static int call(const void *arg) {
  const long nr = *(const long *)arg;
  errno = 0;
  return syscall(nr, 0, 0, 0, 0, 0, 0) >= 0 ? 0 : errno;
}

struct call_row {
  const char *name;
  long nr;
  bool is_of_sanitizers;
};

static void deadly_calls_end_the_process(void **state) {
  static const struct call_row rows[] = {
      {"execve", SYS_execve, true},
      {"execveat", SYS_execveat, false},
      {"ptrace", SYS_ptrace, true},
      {"process_vm_readv", SYS_process_vm_readv, true},
      {"process_vm_writev", SYS_process_vm_writev, false},
      {"mount", SYS_mount, false},
      {"umount2", SYS_umount2, false},
      {"pivot_root", SYS_pivot_root, false},
      {"chroot", SYS_chroot, false},
      {"unshare", SYS_unshare, false},
      {"setns", SYS_setns, false},
      {"keyctl", SYS_keyctl, false},
      {"add_key", SYS_add_key, false},
      {"bpf", SYS_bpf, false},
      {"init_module", SYS_init_module, false},
      {"finit_module", SYS_finit_module, false},
      {"kexec_load", SYS_kexec_load, false},
      {"reboot", SYS_reboot, false},
      {"perf_event_open", SYS_perf_event_open, false},
      {"userfaultfd", SYS_userfaultfd, false},
      {"personality", SYS_personality, true},
      {"open_by_handle_at", SYS_open_by_handle_at, false},
      {"setuid", SYS_setuid, false},
      {"setresuid", SYS_setresuid, false},
      {"setgroups", SYS_setgroups, false},
      {"capset", SYS_capset, false},
      {"clock_settime", SYS_clock_settime, false},
  };
  (void)state;
  skip_without_kernel();
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (!SANDBOX_IS_INSTRUMENTED || !rows[i].is_of_sanitizers) {
      print_message("%s\n", rows[i].name);
      // With every need: none of them opens these.
      assert_int_equal(try_with(~0U, call, &rows[i].nr), -SIGSYS);
    }
  }
}

static void unknown_calls_are_those_of_an_older_kernel(void **state) {
  static const long rows[] = {SYS_memfd_create, SYS_shmget, SYS_clone3, 4000};
  (void)state;
  skip_without_kernel();
  for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !SANDBOX_IS_INSTRUMENTED; i++) {
    assert_int_equal(try_with(~0U, call, &rows[i]), ENOSYS);
  }
}

static int start_process(const void *arg) {
  (void)arg;
  return fork() < 0 ? errno : 0;
}

static int start_program(const void *arg) {
  char name[] = "true";
  char *argv[] = {name, NULL};
  pid_t pid = 0;
  (void)arg;
  return posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL);
}

static void no_process_can_be_started(void **state) {
  (void)state;
  skip_without_kernel();
  if (SANDBOX_IS_INSTRUMENTED) {
    skip();  // there they may: the leak finder is one
  }
  assert_int_equal(try_with(~0U, start_process, NULL), -SIGSYS);
  assert_int_equal(try_with(~0U, start_program, NULL), -SIGSYS);
}

static int map_code(const void *arg) {
  (void)arg;
  return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
             ? errno
             : 0;
}

static int make_code(const void *arg) {
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  (void)arg;
  return page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0 ? errno : 0;
}

static void memory_becomes_code_only_for_modules(void **state) {
  (void)state;
  skip_without_kernel();
  if (SANDBOX_IS_INSTRUMENTED) {
    skip();  // a symbolizer is a program
  }
  assert_int_equal(try_with(SANDBOX_CONNECT | SANDBOX_LISTEN, map_code, NULL), EPERM);
  assert_int_equal(try_with(SANDBOX_CONNECT | SANDBOX_LISTEN, make_code, NULL), EPERM);
  assert_int_equal(try_with(SANDBOX_MODULES, map_code, NULL), 0);
  assert_int_equal(try_with(SANDBOX_MODULES, make_code, NULL), 0);
}

static int push_terminal_input(const void *arg) {
  (void)arg;
  return ioctl(STDERR_FILENO, TIOCSTI, "x") == 0 ? 0 : errno;
}

static void nothing_is_typed_into_the_terminal(void **state) {
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_with(~0U, push_terminal_input, NULL), -SIGSYS);
}

static int signal_parent(const void *arg) {
  (void)arg;
  return kill(getppid(), 0) == 0 ? 0 : errno;
}

static int abort_self(const void *arg) {
  (void)arg;
  abort();
}

static void signals_reach_only_itself(void **state) {
  (void)state;
  skip_without_kernel();
  if (!SANDBOX_IS_INSTRUMENTED) {
    assert_int_not_equal(try_with(~0U, signal_parent, NULL), 0);
  }
  assert_int_equal(try_with(0, abort_self, NULL), -SIGABRT);
}

// --- sockets ---------------------------------------------------------------------------

struct socket_row {
  int family;
  int type;
  int protocol;
};

static int open_socket(const void *arg) {
  const struct socket_row *row = arg;
  return socket(row->family, row->type, row->protocol) < 0 ? errno : 0;
}

static void sockets_are_those_of_the_need(void **state) {
  static const struct socket_row unix_stream = {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0};
  static const struct socket_row tcp = {AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0};
  static const struct socket_row udp6 = {AF_INET6, SOCK_DGRAM, IPPROTO_UDP};
  static const struct socket_row sctp = {AF_INET, SOCK_STREAM, IPPROTO_SCTP};
  static const struct socket_row raw = {AF_INET, SOCK_RAW, IPPROTO_TCP};
  static const struct socket_row netlink = {AF_NETLINK, SOCK_RAW, 0};
  static const struct socket_row deadly[] = {
      {AF_PACKET, SOCK_RAW, 0},    {AF_VSOCK, SOCK_STREAM, 0}, {AF_ALG, SOCK_SEQPACKET, 0},
      {AF_BLUETOOTH, SOCK_RAW, 0}, {AF_AX25, SOCK_DGRAM, 0},
  };
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_with(0, open_socket, &unix_stream), 0);
  assert_int_equal(try_with(SANDBOX_CONNECT, open_socket, &tcp), 0);
  assert_int_equal(try_with(SANDBOX_LISTEN, open_socket, &udp6), 0);
  assert_int_equal(try_with(~0U, open_socket, &netlink), EAFNOSUPPORT);
  for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
    assert_int_equal(try_with(~0U, open_socket, &deadly[i]), -SIGSYS);
  }
  if (!SANDBOX_IS_INSTRUMENTED) {
    assert_int_equal(try_with(0, open_socket, &tcp), ENOSYS);
    assert_int_equal(try_with(~0U, open_socket, &sctp), ENOSYS);
    assert_int_equal(try_with(~0U, open_socket, &raw), ENOSYS);
  }
}

static int connect_to(const void *arg) {
  const struct sockaddr_un *to = arg;
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  return connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : errno;
}

static void abstract_sockets_of_others_are_out_of_reach(void **state) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  (void)state;
  skip_without_kernel();
  (void)snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "deputy-sandbox-test-%d", getpid());
  assert_int_equal(bind(fd, (const struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(listen(fd, 4), 0);
  if (!SANDBOX_IS_INSTRUMENTED) {
    assert_int_equal(try_with(SANDBOX_CONNECT, connect_to, &name), EPERM);
  }
  // Unless the one who wants to hear of readiness has one.
  assert_int_equal(setenv("NOTIFY_SOCKET", "@somebody", 1), 0);
  assert_int_equal(try_with(SANDBOX_CONNECT, connect_to, &name), 0);
  assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
  close(fd);
}

struct tcp_try {
  int fd;  // made before the sandbox, so that the filter does not matter
  struct sockaddr_in to;
};

static int connect_tcp(const void *arg) {
  const struct tcp_try *try = arg;
  return connect(try->fd, (const struct sockaddr *)&try->to, sizeof try->to) == 0 ? 0 : errno;
}

static void tcp_leaves_only_those_who_need_it(void **state) {
  struct tcp_try try = {.to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t len = sizeof try.to;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  (void)state;
  skip_without_kernel();
  assert_int_equal(bind(listener, (const struct sockaddr *)&try.to, sizeof try.to), 0);
  assert_int_equal(listen(listener, 4), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&try.to, &len), 0);
  try.fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(try_with(SANDBOX_CONNECT, connect_tcp, &try), 0);
  close(try.fd);
  try.fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(try_with(SANDBOX_LISTEN, connect_tcp, &try), EACCES);
  close(try.fd);
  close(listener);
}

// --- files -----------------------------------------------------------------------------

static int open_to_read(const void *arg) {
  const int fd = open(arg, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? errno : 0;
}

static int open_to_write(const void *arg) {
  const int fd = open(arg, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  return fd < 0 ? errno : 0;
}

static int open_both_ways(const void *arg) {  // a pipe, without waiting for the other end
  const int fd = open(arg, O_RDWR | O_CLOEXEC);
  return fd < 0 ? errno : 0;
}

static int try_path(enum sandbox_use use, const char *path, attempt *fn, const void *tried) {
  struct box box = {0};
  sandbox_allow(&box.spec, use, path);
  return try_in(&box, fn, tried);
}

// In a build with a sanitizer everything may be read.
static void assert_hidden(int result) {
  assert_int_equal(result, SANDBOX_IS_INSTRUMENTED ? 0 : EACCES);
}

static const char *make_folder(const char *name) {
  const char *path = scratch_path(name);
  assert_int_equal(mkdir(path, 0700), 0);
  return path;
}

static const char *make_file(const char *name) {
  const char *path = scratch_path(name);
  scratch_write(path, "content", 0600);
  return path;
}

static void only_folders_that_are_named_are_read(void **state) {
  const char *folder = make_folder("in");
  const char *named = make_file("in/named.pem");
  const char *beside = make_file("in/beside.pem");
  const char *other = make_file("other.pem");
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_path(SANDBOX_READ_FILE, named, open_to_read, named), 0);
  assert_int_equal(try_path(SANDBOX_READ_FILE, named, open_to_read, beside), 0);
  assert_int_equal(try_path(SANDBOX_READ_FOLDER, folder, open_to_read, folder), 0);
  assert_hidden(try_path(SANDBOX_READ_FILE, named, open_to_read, folder));
  assert_hidden(try_path(SANDBOX_READ_FILE, named, open_to_read, other));
  assert_hidden(try_path(SANDBOX_READ_FILE, named, open_to_read, "/etc/passwd"));
  assert_int_equal(try_path(SANDBOX_READ_FILE, named, open_to_write, named), EACCES);
  assert_int_equal(try_path(SANDBOX_READ_FOLDER, folder, open_to_write, beside), EACCES);
  // A file in the root folder is that file, not everything.
  assert_hidden(try_path(SANDBOX_READ_FILE, "/deputy.json", open_to_read, other));
}

static void a_pipe_is_not_its_folder(void **state) {
  const char *fifo = scratch_path("fifo");
  const char *link = scratch_path("link");
  const char *beside = make_file("beside");
  (void)state;
  assert_int_equal(mkfifo(fifo, 0600), 0);
  assert_int_equal(symlink(fifo, link), 0);
  skip_without_kernel();
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, fifo, open_both_ways, fifo), 0);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, link, open_both_ways, link), 0);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, fifo, open_to_write, beside), EACCES);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, link, open_to_write, beside), EACCES);
}

static void links_are_followed_when_they_are_moved(void **state) {
  const char *real = NULL;
  const char *link = NULL;
  const char *next = NULL;
  (void)state;
  (void)make_folder("live");
  (void)make_folder("archive");
  real = make_file("archive/1.pem");
  next = make_file("archive/2.pem");
  link = scratch_path("live/cert.pem");
  assert_int_equal(symlink(real, link), 0);
  skip_without_kernel();
  assert_int_equal(try_path(SANDBOX_READ_FILE, link, open_to_read, link), 0);
  assert_int_equal(try_path(SANDBOX_READ_FILE, link, open_to_read, next), 0);
}

struct replace {
  const char *path;
  const char *beside;
};

// What file_replace and a rotation do.
static int replace(const void *arg) {
  const struct replace *r = arg;
  int fd = open(r->beside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, "x", 1) != 1 || fsync(fd) != 0 || ftruncate(fd, 0) != 0 ||
      rename(r->beside, r->path) != 0 || open_to_write(r->path) != 0) {
    return errno;
  }
  if (link(r->path, r->beside) != 0 || unlink(r->beside) != 0) {
    return errno;
  }
  return 0;
}

static void files_are_replaced_only_where_they_are_written(void **state) {
  struct replace r = {0};
  const char *folder = make_folder("log");
  const char *other = make_file("other");
  (void)state;
  r.path = scratch_path("log/audit");  // not there yet
  r.beside = scratch_path("log/audit.new");
  skip_without_kernel();
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, r.path, replace, (const void *)&r), 0);
  assert_int_equal(try_path(SANDBOX_WRITE_FOLDER, folder, replace, (const void *)&r), 0);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, r.path, open_to_write, other), EACCES);
  assert_int_equal(try_path(SANDBOX_READ_FOLDER, folder, replace, (const void *)&r), EACCES);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, "stderr", open_to_write, other), EACCES);
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, NULL, open_to_write, "/dev/null"), 0);
}

static int make_socket(const void *arg) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", (const char *)arg);
  (void)unlink(arg);
  return bind(fd, (const struct sockaddr *)&name, sizeof name) == 0 && listen(fd, 1) == 0 ? 0
                                                                                          : errno;
}

static void sockets_are_made_where_they_are_named(void **state) {
  char address[256];
  const char *path = scratch_path("admin.sock");
  struct box box = {.spec = {.needs = SANDBOX_LISTEN}};
  struct box empty = {.spec = {.needs = SANDBOX_LISTEN}};
  (void)state;
  skip_without_kernel();
  (void)snprintf(address, sizeof address, "unix:%s", path);
  sandbox_allow_address(&box.spec, address);
  sandbox_allow_address(&box.spec, "127.0.0.1:443");
  sandbox_allow_address(&box.spec, NULL);
  assert_int_equal(box.spec.num_paths, 1);
  assert_int_equal(try_in(&box, make_socket, path), 0);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(try_in(&empty, make_socket, path), EACCES);
}

static void an_operators_paths_are_his_word(void **state) {
  char *folder = (char *)(uintptr_t)make_folder("token");
  const char *file = make_file("token/object");
  char *paths[] = {folder};
  const struct sandbox_options more = {.mode = SANDBOX_REQUIRE, .paths = paths, .num_paths = 1};
  struct box box = {.options = &more};
  struct box modules = {.options = &more};
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_in(&box, open_to_read, file), 0);
  assert_int_equal(try_in(&box, open_to_write, file), EACCES);
  modules.spec.needs = SANDBOX_MODULES;
  assert_int_equal(try_in(&modules, open_to_write, file), 0);
  modules.spec.needs = SANDBOX_MODULES;
  assert_hidden(try_in(&modules, open_to_read, "/etc/passwd"));
  // Without a word of his nobody knows what a module reads and writes.
  assert_int_equal(try_with(SANDBOX_MODULES, open_to_write, file), 0);
  assert_int_equal(try_with(SANDBOX_MODULES, open_to_read, "/etc/passwd"), 0);
}

static void names_need_the_resolvers_files(void **state) {
  (void)state;
  skip_without_kernel();
  if (open_to_read("/etc/hosts") != 0) {
    skip();
  }
  assert_int_equal(try_with(SANDBOX_NAMES, open_to_read, "/etc/hosts"), 0);
  assert_hidden(try_with(SANDBOX_CONNECT, open_to_read, "/etc/hosts"));
}

// --- threads ---------------------------------------------------------------------------

static void *open_in_thread(void *arg) {
  thread_turn_short();
  thread_turn_yield(10);
  return (void *)(intptr_t)open_to_write(arg);
}

static int in_thread(const void *arg) {
  pthread_t thread;
  void *result = NULL;
  if (pthread_create(&thread, NULL, open_in_thread, (void *)(uintptr_t)arg) != 0 ||
      pthread_join(thread, &result) != 0) {
    return THREAD_FAILED;
  }
  return (int)(intptr_t)result;
}

static void threads_that_come_later_are_inside(void **state) {
  const char *path = make_file("file");
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_path(SANDBOX_WRITE_FILE, path, in_thread, path), 0);
  assert_int_equal(try_with(0, in_thread, path), EACCES);
}

// --- modes ------------------------------------------------------------------------------

static int tell(const void *arg) {
  const struct sandbox_state *is = sandbox_state();
  struct metrics_text text = {0};
  char want[256];
  const bool is_on = *(const bool *)arg;

  if (!is->has_no_new_privs || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
    return 1;
  }
  if (is->has_seccomp != is_on || (is->landlock_abi > 0) != is_on || is->has_files != is_on ||
      is->missing[0] != '\0') {
    return 2;
  }
  if ((sandbox_hint(EACCES)[0] != '\0') != is_on || sandbox_hint(ENOENT)[0] != '\0') {
    return 3;
  }
  sandbox_metrics(&text, "x_sandbox_active");
  (void)snprintf(want, sizeof want,
                 "x_sandbox_active{kind=\"seccomp\"} %d\n"
                 "x_sandbox_active{kind=\"landlock\"} %d\n"
                 "x_sandbox_active{kind=\"no_new_privs\"} 1\n",
                 is_on, is_on);
  return strstr(text.data, want) == NULL ? 4 : 0;
}

static void it_says_what_is_in_force(void **state) {
  static const struct sandbox_options off = {.mode = SANDBOX_OFF};
  static const struct sandbox_options require = {.mode = SANDBOX_REQUIRE};
  static const bool yes = true;
  static const bool no = false;
  struct box box = {0};
  (void)state;
  skip_without_kernel();
  assert_int_equal(try_with(0, tell, &yes), 0);
  box.options = &require;
  assert_int_equal(try_in(&box, tell, &yes), 0);
  box.options = &off;
  assert_int_equal(try_in(&box, tell, &no), 0);
  assert_string_equal(sandbox_hint(EACCES), "");  // we ourselves are outside
}

static int print_line(const void *arg) {
  const int fd = *(const int *)arg;
  (void)dup2(fd, STDERR_FILENO);
  sandbox_log();  // before log_init it goes to standard error
  return 0;
}

static void one_line_of_log_says_it_too(void **state) {
  const char *path = scratch_path("log");
  const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  char *text = NULL;
  (void)state;
  skip_without_kernel();
  assert_true(fd >= 0);
  assert_int_equal(try_with(0, print_line, &fd), 0);
  close(fd);
  text = scratch_read(path);
  assert_non_null(strstr(text, " sandbox seccomp=on landlock=abi"));
  assert_non_null(strstr(text, " no_new_privs=on"));
  free(text);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, scratch_make, scratch_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(deadly_calls_end_the_process),
      cmocka_unit_test(unknown_calls_are_those_of_an_older_kernel),
      cmocka_unit_test(no_process_can_be_started),
      cmocka_unit_test(memory_becomes_code_only_for_modules),
      cmocka_unit_test(nothing_is_typed_into_the_terminal),
      cmocka_unit_test(signals_reach_only_itself),
      cmocka_unit_test(sockets_are_those_of_the_need),
      cmocka_unit_test(abstract_sockets_of_others_are_out_of_reach),
      cmocka_unit_test(tcp_leaves_only_those_who_need_it),
      IN_FOLDER(only_folders_that_are_named_are_read),
      IN_FOLDER(a_pipe_is_not_its_folder),
      IN_FOLDER(links_are_followed_when_they_are_moved),
      IN_FOLDER(files_are_replaced_only_where_they_are_written),
      IN_FOLDER(sockets_are_made_where_they_are_named),
      IN_FOLDER(an_operators_paths_are_his_word),
      cmocka_unit_test(names_need_the_resolvers_files),
      IN_FOLDER(threads_that_come_later_are_inside),
      cmocka_unit_test(it_says_what_is_in_force),
      IN_FOLDER(one_line_of_log_says_it_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
