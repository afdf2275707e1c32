/*
 * What Linux offers a storage server and Node does not: reads that never wait for the disk, space
 * reserved and given back, extended attributes, locks that die with their process, syncfs, holes,
 * where memory lies for direct I/O, syslog.
 *
 * N-API version 8 only: one build serves every Node from 16 on. No libuv, no state between calls,
 * so it may be loaded into any number of worker threads.
 *
 * Rules: every argument is checked before it is used; a wrong one throws a TypeError or RangeError
 * and touches nothing. A failed system call throws (or rejects with) an Error that has `code`
 * (errno name), `errno` (negative, as libuv has it) and `syscall`. Memory of JavaScript is never
 * used off the main thread.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <syslog.h>
#include <unistd.h>

#include "../binding.h"

/* The kernel's own limits (xattr(7)). */
#define ATTRIBUTE_NAME_MAX 255
#define ATTRIBUTE_BYTES_MAX 65536
#define SYSLOG_LINE_MAX 8192
#define ARGS_MAX 3
/* What memory for direct I/O begins at multiples of: enough for every block size up to a page. */
#define DIRECT_UNIT_BYTES 4096

/* Answers of readNow that are not a count. */
#define READ_WOULD_BLOCK (-1)
#define READ_NOT_SUPPORTED (-2)

static napi_value boolean_or_throw(napi_env env, bool value) {
  napi_value result;
  if (napi_get_boolean(env, value, &result) == napi_ok) return result;
  return broken(env, "posix: the result cannot be made");
}

/* ---- reading and writing at once ------------------------------------------------------------- */

/* tmpfs knows no RWF_NOWAIT, but no read of it ever waits for a disk. */
static bool lives_in_memory(int fd) {
  struct statfs where;
  return fstatfs(fd, &where) == 0 &&
         (where.f_type == TMPFS_MAGIC || where.f_type == RAMFS_MAGIC);
}

/*
 * readNow(fd, into: Uint8Array, position) -> bytes | -1 | -2
 * The kernel ends such a read early where the page cache ends, which looks like the end of the file;
 * so it goes on until it is refused (-1), finds the true end, or has filled `into`.
 */
static napi_value read_now(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int fd;
  uint8_t *data;
  size_t length;
  off_t position;
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &fd) ||
      !get_bytes(env, args[1], &data, &length) || !get_offset(env, args[2], &position))
    return NULL;
  int flags = RWF_NOWAIT;
  size_t moved = 0;
  while (moved < length) {
    struct iovec piece = {data + moved, length - moved};
    ssize_t count = preadv2(fd, &piece, 1, position + (off_t)moved, flags);
    if (count == 0) break;
    if (count > 0)
      moved += (size_t)count;
    else if (errno == EAGAIN)
      return number_or_throw(env, READ_WOULD_BLOCK);
    else if (errno == EOPNOTSUPP || errno == ENOSYS) {
      if (!lives_in_memory(fd)) return number_or_throw(env, READ_NOT_SUPPORTED);
      flags = 0;
    } else if (errno != EINTR)
      return fail(env, errno, "preadv2");
  }
  return number_or_throw(env, (int64_t)moved);
}

/* writeNow(fd, data: Uint8Array, position) -> bytes, always all of them */
static napi_value write_now(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int fd;
  uint8_t *data;
  size_t length;
  off_t position;
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &fd) ||
      !get_bytes(env, args[1], &data, &length) || !get_offset(env, args[2], &position))
    return NULL;
  size_t moved = 0;
  while (moved < length) {
    ssize_t count = pwrite(fd, data + moved, length - moved, position + (off_t)moved);
    if (count > 0)
      moved += (size_t)count;
    else if (count == 0)
      return fail(env, EIO, "pwrite");
    else if (errno != EINTR)
      return fail(env, errno, "pwrite");
  }
  return number_or_throw(env, (int64_t)moved);
}

/*
 * directOffset(bytes: Uint8Array) -> how far behind a multiple of DIRECT_UNIT_BYTES its memory begins
 * The memory of an ArrayBuffer stays where it is, so this need be asked once only.
 */
static napi_value direct_offset(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  uint8_t *data;
  size_t length;
  if (!get_args(env, info, args, ARGS_MAX) || !get_bytes(env, args[0], &data, &length)) return NULL;
  return number_or_throw(env, (int64_t)((uintptr_t)data % DIRECT_UNIT_BYTES));
}

static napi_value seek(napi_env env, napi_callback_info info, int whence) {
  napi_value args[ARGS_MAX];
  int fd;
  off_t offset;
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &fd) ||
      !get_offset(env, args[1], &offset))
    return NULL;
  off_t found = lseek(fd, offset, whence);
  if (found >= 0) return number_or_throw(env, found);
  /* ENXIO: nothing of that kind up to the end of the file. */
  return errno == ENXIO ? number_or_throw(env, -1) : fail(env, errno, "lseek");
}

/* seekData(fd, from) -> offset of the next data at or after `from`, -1 when there is none */
static napi_value seek_data(napi_env env, napi_callback_info info) {
  return seek(env, info, SEEK_DATA);
}

/* seekHole(fd, from) -> offset of the next hole (the end of the file is one), -1 past the end */
static napi_value seek_hole(napi_env env, napi_callback_info info) {
  return seek(env, info, SEEK_HOLE);
}

/* ---- extended attributes --------------------------------------------------------------------- */

/* The file an attribute belongs to: a descriptor when the first argument is a number, else a path. */
struct target {
  int fd;
  char path[PATH_MAX];
};

static bool get_target(napi_env env, napi_value value, struct target *out) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok) return wrong_type(env, "posix: no file given");
  out->fd = -1;
  if (type == napi_number) return get_fd(env, value, &out->fd);
  return get_text(env, value, out->path, sizeof out->path);
}

/* getAttribute(path | fd, name) -> Buffer | undefined when there is no such attribute */
static napi_value get_attribute(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX], result;
  struct target file;
  char name[ATTRIBUTE_NAME_MAX + 1];
  /* As large as an attribute can be: no asking for the size first, no race between the two calls. */
  char value[ATTRIBUTE_BYTES_MAX];
  if (!get_args(env, info, args, ARGS_MAX) || !get_target(env, args[0], &file) ||
      !get_text(env, args[1], name, sizeof name))
    return NULL;
  ssize_t length = file.fd >= 0 ? fgetxattr(file.fd, name, value, sizeof value)
                                : getxattr(file.path, name, value, sizeof value);
  if (length < 0 && errno == ENODATA) {
    if (napi_get_undefined(env, &result) == napi_ok) return result;
  } else if (length < 0) {
    return fail(env, errno, file.fd >= 0 ? "fgetxattr" : "getxattr");
  } else if (napi_create_buffer_copy(env, (size_t)length, value, NULL, &result) == napi_ok) {
    return result;
  }
  return broken(env, "posix: the result cannot be made");
}

/* setAttribute(path | fd, name, value: Uint8Array) */
static napi_value set_attribute(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  struct target file;
  char name[ATTRIBUTE_NAME_MAX + 1];
  uint8_t *value;
  size_t length;
  if (!get_args(env, info, args, ARGS_MAX) || !get_target(env, args[0], &file) ||
      !get_text(env, args[1], name, sizeof name) || !get_bytes(env, args[2], &value, &length))
    return NULL;
  int result = file.fd >= 0 ? fsetxattr(file.fd, name, value, length, 0)
                            : setxattr(file.path, name, value, length, 0);
  return result == 0 ? NULL : fail(env, errno, file.fd >= 0 ? "fsetxattr" : "setxattr");
}

/* removeAttribute(path | fd, name) -> whether it was there */
static napi_value remove_attribute(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  struct target file;
  char name[ATTRIBUTE_NAME_MAX + 1];
  if (!get_args(env, info, args, ARGS_MAX) || !get_target(env, args[0], &file) ||
      !get_text(env, args[1], name, sizeof name))
    return NULL;
  int result = file.fd >= 0 ? fremovexattr(file.fd, name) : removexattr(file.path, name);
  if (result != 0 && errno != ENODATA)
    return fail(env, errno, file.fd >= 0 ? "fremovexattr" : "removexattr");
  return boolean_or_throw(env, result == 0);
}

/* ---- locks ----------------------------------------------------------------------------------- */

/*
 * lock(path) -> fd, or -1 when somebody else holds it. Closing the descriptor ends the lock.
 *
 * An open-file-description lock over the whole file: it ends when this process does, however that
 * happens; unlike a POSIX lock it does not vanish because somebody in this process opened and closed
 * the same file, and it excludes a second taker in this process too; unlike flock it also excludes
 * holders of POSIX locks (fcntl, lockf), as the C daemon's are. O_CLOEXEC: children do not inherit it.
 */
static napi_value lock(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  char path[PATH_MAX];
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], path, sizeof path)) return NULL;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return fail(env, errno, "open");
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  int result;
  do result = fcntl(fd, F_OFD_SETLK, &whole);
  while (result < 0 && errno == EINTR);
  if (result == 0) return number_or_throw(env, fd);
  int number = errno;
  close(fd);
  if (number == EAGAIN || number == EACCES) return number_or_throw(env, -1);
  return fail(env, number, "fcntl");
}

/* ---- work off the main thread ---------------------------------------------------------------- */

struct job {
  napi_async_work work;
  napi_deferred deferred;
  int (*run)(struct job *); /* 0 or an errno */
  const char *syscall;
  int fd;
  int mode;
  off_t offset;
  off_t length;
  int outcome;
  char path[PATH_MAX];
};

static int run_fallocate(struct job *job) {
  int result;
  do result = fallocate(job->fd, job->mode, job->offset, job->length);
  while (result < 0 && errno == EINTR);
  return result < 0 ? errno : 0;
}

static int run_syncfs(struct job *job) {
  int fd = open(job->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno;
  int number = syncfs(fd) < 0 ? errno : 0;
  close(fd);
  return number;
}

static void execute(napi_env env, void *data) {
  struct job *job = data;
  (void)env;
  job->outcome = job->run(job);
}

/* The environment is going away when these calls fail; there is nobody left to tell. */
static void complete(napi_env env, napi_status status, void *data) {
  struct job *job = data;
  napi_value result = NULL;
  int outcome = status == napi_ok ? job->outcome : ECANCELED;
  if (outcome != 0) {
    result = make_error(env, outcome, job->syscall);
    if (result != NULL) napi_reject_deferred(env, job->deferred, result);
  } else if (napi_get_undefined(env, &result) == napi_ok) {
    napi_resolve_deferred(env, job->deferred, result);
  }
  napi_delete_async_work(env, job->work);
  free(job);
}

/* Takes the job over, also when it throws. */
static napi_value start(napi_env env, struct job *job) {
  napi_value promise, name;
  if (napi_create_string_utf8(env, job->syscall, NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, execute, complete, job, &job->work) != napi_ok) {
    free(job);
    napi_throw_error(env, NULL, "posix: the work cannot be made");
    return NULL;
  }
  if (napi_create_promise(env, &job->deferred, &promise) == napi_ok &&
      napi_queue_async_work(env, job->work) == napi_ok)
    return promise;
  napi_delete_async_work(env, job->work);
  free(job);
  napi_throw_error(env, NULL, "posix: the work cannot be queued");
  return NULL;
}

static napi_value change_space(napi_env env, napi_callback_info info, int mode) {
  napi_value args[ARGS_MAX];
  struct job wanted = {.run = run_fallocate, .syscall = "fallocate", .mode = mode};
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &wanted.fd) ||
      !get_offset(env, args[1], &wanted.offset) || !get_offset(env, args[2], &wanted.length))
    return NULL;
  struct job *job = malloc(sizeof *job);
  if (job == NULL) return fail(env, ENOMEM, "malloc");
  *job = wanted;
  return start(env, job);
}

/* allocate(fd, offset, length) -> Promise: reserves the range, extends the file when it ends earlier */
static napi_value allocate(napi_env env, napi_callback_info info) {
  return change_space(env, info, 0);
}

/* punch(fd, offset, length) -> Promise: gives the range back; it reads as zeros, the size stays */
static napi_value punch(napi_env env, napi_callback_info info) {
  return change_space(env, info, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

/* syncfs(path) -> Promise: everything on the file system of `path` is on stable storage */
static napi_value sync_file_system(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  if (!get_args(env, info, args, ARGS_MAX)) return NULL;
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) return fail(env, ENOMEM, "malloc");
  job->run = run_syncfs;
  job->syscall = "syncfs";
  if (!get_text(env, args[0], job->path, sizeof job->path)) {
    free(job);
    return NULL;
  }
  return start(env, job);
}

/* ---- system log ------------------------------------------------------------------------------ */

/* syslog(severity 0..7, line): facility daemon, tag and pid as the C daemon has them */
static napi_value write_syslog(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int64_t severity;
  char line[SYSLOG_LINE_MAX];
  if (!get_args(env, info, args, ARGS_MAX) || !get_integer(env, args[0], LOG_DEBUG, &severity) ||
      !get_text(env, args[1], line, sizeof line))
    return NULL;
  openlog("sheep", LOG_PID, LOG_DAEMON);
  syslog((int)severity, "%s", line);
  return NULL;
}

/* ---- module ---------------------------------------------------------------------------------- */

NAPI_MODULE_INIT() {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {
      {"readNow", read_now},
      {"writeNow", write_now},
      {"directOffset", direct_offset},
      {"seekData", seek_data},
      {"seekHole", seek_hole},
      {"getAttribute", get_attribute},
      {"setAttribute", set_attribute},
      {"removeAttribute", remove_attribute},
      {"lock", lock},
      {"allocate", allocate},
      {"punch", punch},
      {"syncfs", sync_file_system},
      {"syslog", write_syslog},
  };
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      napi_throw_error(env, NULL, "posix: the functions cannot be exported");
      return NULL;
    }
  }
  return exports;
}
