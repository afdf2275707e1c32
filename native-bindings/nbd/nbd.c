/*
 * The kernel's NBD client for Node: generic netlink (linux/nbd-netlink.h) to say what it shall do, and the ioctls of
 * linux/nbd.h where netlink is not to be had.
 *
 * N-API version 8 only, no libuv. What messages mean is JavaScript's business (src/wire/netlink): here are only the system
 * calls. Whatever may wait runs on a thread; the two that last (watch, serve) on one of their own, with all signals
 * blocked, because a pool thread that never comes back would be missing at its other work and hold up the exit.
 *
 * Rules as in posix.c: wrong arguments throw and touch nothing; a failed system call throws or rejects with an
 * Error that has `code`, `errno` and `syscall`. Memory of JavaScript is never used off its thread.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/genetlink.h>
#include <linux/nbd.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <node_api.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "../binding.h"

#define ARGS_MAX 3
#define SOCKETS_MAX 16
/* The longest answer is the list of all devices, 20 bytes each. */
#define REPLY_BYTES_MAX (256 * 1024)
/* How long the kernel may think; it waits for its own workers when it disconnects. */
#define REPLY_SECONDS 60
#define EVENT_BYTES_MAX 8192
#define THREAD_STACK_BYTES (256 * 1024)

/* ---- arguments ------------------------------------------------------------------------------- */

static bool get_member(napi_env env, napi_value object, const char *name, double max,
                       int64_t *out) {
  napi_value value;
  if (napi_get_named_property(env, object, name, &value) != napi_ok)
    return wrong_type(env, "nbd: an object is expected");
  return get_integer(env, value, max, out);
}

/* ---- work that ends: on the pool -------------------------------------------------------------- */

struct job {
  napi_async_work work;
  napi_deferred deferred;
  int (*run)(struct job *); /* 0 or an errno */
  const char *syscall;      /* the one that failed, too */
  int outcome;
  char path[PATH_MAX];
  size_t length, reply_length;
  uint8_t *reply;
  uint8_t request[];
};

static int open_netlink(void) {
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
}

/* Whether these messages hold the last word on a request: an error, or the acknowledgement (error 0). */
static bool has_verdict(const uint8_t *bytes, size_t length) {
  int left = (int)length;
  for (const struct nlmsghdr *head = (const void *)bytes; NLMSG_OK(head, left);
       head = NLMSG_NEXT(head, left))
    if (head->nlmsg_type == NLMSG_ERROR) return true;
  return false;
}

static int exchange(struct job *job, int fd) {
  struct timeval patience = {.tv_sec = REPLY_SECONDS};
  job->syscall = "setsockopt";
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0) return errno;
  job->syscall = "send";
  if (send(fd, job->request, job->length, 0) < 0) return errno;
  job->syscall = "recv";
  job->reply = calloc(1, REPLY_BYTES_MAX);
  if (job->reply == NULL) return ENOMEM;
  for (;;) {
    size_t room = REPLY_BYTES_MAX - job->reply_length;
    if (room == 0) return EMSGSIZE;
    uint8_t *at = job->reply + job->reply_length;
    ssize_t count = recv(fd, at, room, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    /* Each datagram starts on a multiple of four, as messages inside of one do. */
    job->reply_length += NLMSG_ALIGN((size_t)count) < room ? NLMSG_ALIGN((size_t)count) : room;
    if (has_verdict(at, (size_t)count)) return 0;
  }
}

static int run_netlink(struct job *job) {
  int fd = open_netlink();
  if (fd < 0) return errno;
  int number = exchange(job, fd);
  close(fd);
  return number;
}

static int run_hang_up(struct job *job) {
  job->syscall = "open";
  int fd = open(job->path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  job->syscall = "ioctl";
  /* Both are asked for whatever the first one says: a device whose server is dead has nobody to disconnect from. */
  int said = ioctl(fd, NBD_DISCONNECT) < 0 ? errno : 0;
  int cleared = ioctl(fd, NBD_CLEAR_SOCK) < 0 ? errno : 0;
  close(fd);
  return cleared != 0 ? cleared : said == EINVAL ? 0 : said;
}

static void execute(napi_env env, void *data) {
  struct job *job = data;
  (void)env;
  job->outcome = job->run(job);
}

static void free_job(struct job *job) {
  free(job->reply);
  free(job);
}

/* The environment is going away when these calls fail; there is nobody left to tell. */
static void complete(napi_env env, napi_status status, void *data) {
  struct job *job = data;
  napi_value result = NULL;
  int outcome = status == napi_ok ? job->outcome : ECANCELED;
  if (outcome != 0) {
    result = make_error(env, outcome, job->syscall);
    if (result != NULL) napi_reject_deferred(env, job->deferred, result);
  } else if (napi_create_buffer_copy(env, job->reply_length,
                                     job->reply == NULL ? job->request : job->reply, NULL,
                                     &result) == napi_ok) {
    napi_resolve_deferred(env, job->deferred, result);
  }
  napi_delete_async_work(env, job->work);
  free_job(job);
}

/* Takes the job over, also when it throws. */
static napi_value start(napi_env env, struct job *job) {
  napi_value promise, name;
  if (napi_create_string_utf8(env, job->syscall, NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, execute, complete, job, &job->work) != napi_ok) {
    free_job(job);
    return broken(env, "nbd: the work cannot be made");
  }
  if (napi_create_promise(env, &job->deferred, &promise) == napi_ok &&
      napi_queue_async_work(env, job->work) == napi_ok)
    return promise;
  napi_delete_async_work(env, job->work);
  free_job(job);
  return broken(env, "nbd: the work cannot be queued");
}

/* netlink(request: Uint8Array) -> Promise<Buffer>: whatever came back, up to the verdict in it */
static napi_value netlink(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  uint8_t *bytes;
  size_t length;
  if (!get_args(env, info, args, ARGS_MAX) || !get_bytes(env, args[0], &bytes, &length)) return NULL;
  if (length < sizeof(struct nlmsghdr)) {
    wrong_range(env, "nbd: this is no netlink message");
    return NULL;
  }
  struct job *job = calloc(1, sizeof *job + length);
  if (job == NULL) return fail(env, ENOMEM, "malloc");
  job->run = run_netlink;
  job->syscall = "socket";
  job->length = length;
  memcpy(job->request, bytes, length);
  return start(env, job);
}

/* hangUp(path) -> Promise: ends what `serve`, or another program's ioctls, attached to the device */
static napi_value hang_up(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL) return fail(env, ENOMEM, "malloc");
  job->run = run_hang_up;
  job->syscall = "open";
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], job->path, PATH_MAX)) {
    free_job(job);
    return NULL;
  }
  return start(env, job);
}

/* ---- work that lasts: on a thread of its own --------------------------------------------------- */

struct lasting {
  napi_threadsafe_function function;
  napi_deferred deferred; /* of serve */
  int fd;                 /* the netlink socket, or the device */
  int outcome;
};

struct event {
  size_t length;
  uint8_t bytes[];
};

static bool start_thread(void *(*run)(void *), void *of) {
  pthread_attr_t how;
  pthread_t thread;
  sigset_t all, before;
  if (pthread_attr_init(&how) != 0) return false;
  pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&how, THREAD_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&thread, &how, run, of) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&how);
  return started;
}

static void *watch_thread(void *of) {
  struct lasting *watch = of;
  for (;;) {
    struct event *event = malloc(sizeof *event + EVENT_BYTES_MAX);
    if (event == NULL) break;
    ssize_t count = recv(watch->fd, event->bytes, EVENT_BYTES_MAX, 0);
    /* ENOBUFS: events were lost. The listener hears of an empty one and looks for itself. */
    event->length = count < 0 ? 0 : (size_t)count;
    if (count < 0 && errno != ENOBUFS && errno != EINTR) {
      free(event);
      break;
    }
    if (napi_call_threadsafe_function(watch->function, event, napi_tsfn_nonblocking) != napi_ok) {
      free(event);
      break;
    }
  }
  close(watch->fd);
  napi_release_threadsafe_function(watch->function, napi_tsfn_release);
  free(watch);
  return NULL;
}

static void tell_event(napi_env env, napi_value callback, void *context, void *data) {
  struct event *event = data;
  napi_value bytes, global;
  (void)context;
  if (env != NULL && napi_get_global(env, &global) == napi_ok &&
      napi_create_buffer_copy(env, event->length, event->bytes, NULL, &bytes) == napi_ok)
    napi_call_function(env, global, callback, 1, &bytes, NULL);
  free(event);
}

/* watch(group, listener(messages: Buffer)): as long as the process lives; does not keep it alive */
static napi_value watch(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX], name;
  napi_valuetype type;
  int64_t group;
  if (!get_args(env, info, args, ARGS_MAX) || !get_integer(env, args[0], UINT32_MAX, &group)) return NULL;
  if (napi_typeof(env, args[1], &type) != napi_ok || type != napi_function) {
    wrong_type(env, "nbd: a function is expected");
    return NULL;
  }
  struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  uint32_t wanted = (uint32_t)group;
  int fd = open_netlink();
  if (fd < 0) return fail(env, errno, "socket");
  if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0 ||
      setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &wanted, sizeof wanted) < 0) {
    int number = errno;
    close(fd);
    return fail(env, number, "setsockopt");
  }
  struct lasting *watch = calloc(1, sizeof *watch);
  if (watch == NULL) {
    close(fd);
    return fail(env, ENOMEM, "malloc");
  }
  watch->fd = fd;
  if (napi_create_string_utf8(env, "nbd watch", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, args[1], NULL, name, 0, 1, NULL, NULL, NULL, tell_event,
                                      &watch->function) != napi_ok) {
    close(fd);
    free(watch);
    return broken(env, "nbd: the listener cannot be kept");
  }
  napi_unref_threadsafe_function(env, watch->function);
  if (start_thread(watch_thread, watch)) return NULL;
  napi_release_threadsafe_function(watch->function, napi_tsfn_abort);
  close(fd);
  free(watch);
  return fail(env, EAGAIN, "pthread_create");
}

/* The kernel keeps the caller of NBD_DO_IT until the device is disconnected. */
static void *serve_thread(void *of) {
  struct lasting *device = of;
  device->outcome = ioctl(device->fd, NBD_DO_IT) < 0 ? errno : 0;
  ioctl(device->fd, NBD_CLEAR_QUE);
  ioctl(device->fd, NBD_CLEAR_SOCK);
  close(device->fd);
  napi_threadsafe_function function = device->function;
  napi_call_threadsafe_function(function, device, napi_tsfn_blocking);
  napi_release_threadsafe_function(function, napi_tsfn_release);
  return NULL;
}

static void tell_end(napi_env env, napi_value callback, void *context, void *data) {
  struct lasting *device = data;
  napi_value result;
  (void)callback;
  (void)context;
  if (env != NULL && device->outcome != 0) {
    result = make_error(env, device->outcome, "ioctl");
    if (result != NULL) napi_reject_deferred(env, device->deferred, result);
  } else if (env != NULL && napi_get_undefined(env, &result) == napi_ok) {
    napi_resolve_deferred(env, device->deferred, result);
  }
  free(device);
}

struct settings {
  int64_t block_bytes, blocks, flags, timeout_seconds;
  uint32_t sockets;
  int socket[SOCKETS_MAX];
};

static bool get_settings(napi_env env, napi_value object, napi_value list, struct settings *out) {
  bool is_array = false;
  if (!get_member(env, object, "blockBytes", 65536, &out->block_bytes) ||
      !get_member(env, object, "blocks", MAX_SAFE_INTEGER, &out->blocks) ||
      !get_member(env, object, "flags", 65535, &out->flags) ||
      !get_member(env, object, "timeoutSeconds", INT_MAX, &out->timeout_seconds))
    return false;
  if (napi_is_array(env, list, &is_array) != napi_ok || !is_array ||
      napi_get_array_length(env, list, &out->sockets) != napi_ok)
    return wrong_type(env, "nbd: a list of descriptors is expected");
  if (out->sockets == 0 || out->sockets > SOCKETS_MAX)
    return wrong_range(env, "nbd: too few or too many descriptors");
  for (uint32_t i = 0; i < out->sockets; i++) {
    napi_value value;
    int64_t fd;
    if (napi_get_element(env, list, i, &value) != napi_ok ||
        !get_integer(env, value, INT_MAX, &fd))
      return false;
    out->socket[i] = (int)fd;
  }
  return true;
}

/*
 * The sockets first: that is refused where the device is somebody else's, and nothing before it may harm him. NBD_CLEAR_SOCK
 * would take his device away, so it is only said once the device is ours.
 */
static int prepare(int device, const struct settings *how) {
  int read_only = (how->flags & NBD_FLAG_READ_ONLY) != 0;
  if (ioctl(device, NBD_SET_SOCK, (unsigned long)how->socket[0]) < 0) return errno;
  int number = 0;
  for (uint32_t i = 1; i < how->sockets && number == 0; i++)
    if (ioctl(device, NBD_SET_SOCK, (unsigned long)how->socket[i]) < 0) number = errno;
  if (number == 0 && (ioctl(device, NBD_SET_BLKSIZE, (unsigned long)how->block_bytes) < 0 ||
                      ioctl(device, NBD_SET_SIZE_BLOCKS, (unsigned long)how->blocks) < 0 ||
                      ioctl(device, NBD_SET_FLAGS, (unsigned long)how->flags) < 0 ||
                      ioctl(device, BLKROSET, &read_only) < 0))
    number = errno;
  if (number == 0 && how->timeout_seconds > 0 &&
      ioctl(device, NBD_SET_TIMEOUT, (unsigned long)how->timeout_seconds) < 0)
    number = errno;
  if (number != 0) ioctl(device, NBD_CLEAR_SOCK);
  return number;
}

/*
 * serve(path, {blockBytes, blocks, flags, timeoutSeconds}, sockets: number[]) -> Promise: the device works until the
 * promise settles. The kernel has references of its own to the sockets when this returns.
 */
static napi_value serve(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX], promise, name;
  char path[PATH_MAX];
  struct settings how;
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], path, PATH_MAX) ||
      !get_settings(env, args[1], args[2], &how))
    return NULL;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return fail(env, errno, "open");
  struct lasting *device = calloc(1, sizeof *device);
  int number = device == NULL ? ENOMEM : prepare(fd, &how);
  if (number != 0) {
    free(device);
    close(fd);
    return fail(env, number, "ioctl");
  }
  device->fd = fd;
  if (napi_create_string_utf8(env, "nbd serve", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_promise(env, &device->deferred, &promise) == napi_ok &&
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, tell_end,
                                      &device->function) == napi_ok) {
    if (start_thread(serve_thread, device)) return promise;
    napi_release_threadsafe_function(device->function, napi_tsfn_abort);
  }
  ioctl(fd, NBD_CLEAR_SOCK);
  close(fd);
  free(device);
  return broken(env, "nbd: the thread of the device cannot be started");
}

/* ---- sockets ---------------------------------------------------------------------------------- */

/*
 * noticeDeath(fd, milliseconds): a TCP connection whose other end is gone without a word fails after so long, idle or
 * not. Without effect on sockets that are not TCP.
 */
static napi_value notice_death(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int64_t fd, wait_ms;
  if (!get_args(env, info, args, ARGS_MAX) || !get_integer(env, args[0], INT_MAX, &fd) ||
      !get_integer(env, args[1], INT_MAX, &wait_ms))
    return NULL;
  int on = 1, probes = 3, between = (int)(wait_ms / 1000 / (probes + 1));
  unsigned int unanswered = (unsigned int)wait_ms;
  if (between < 1) between = 1;
  if (setsockopt((int)fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0)
    return fail(env, errno, "setsockopt");
  const struct {
    int name;
    const void *value;
  } options[] = {
      {TCP_KEEPIDLE, &between},
      {TCP_KEEPINTVL, &between},
      {TCP_KEEPCNT, &probes},
      {TCP_USER_TIMEOUT, &unanswered},
  };
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    if (setsockopt((int)fd, IPPROTO_TCP, options[i].name, options[i].value, sizeof(int)) < 0 &&
        errno != EOPNOTSUPP && errno != ENOPROTOOPT)
      return fail(env, errno, "setsockopt");
  return NULL;
}

/*
 * pair() -> [number, number]: both ends of a stream connection within this process, which nobody else inherits
 */
static napi_value pair(napi_env env, napi_callback_info info) {
  napi_value result, number;
  int ends[2];
  (void)info;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
    return fail(env, errno, "socketpair");
  if (napi_create_array_with_length(env, 2, &result) == napi_ok) {
    uint32_t i = 0;
    while (i < 2 && napi_create_int32(env, ends[i], &number) == napi_ok &&
           napi_set_element(env, result, i, number) == napi_ok)
      i++;
    if (i == 2) return result;
  }
  close(ends[0]);
  close(ends[1]);
  return broken(env, "nbd: the pair cannot be told");
}

/* ---- module ----------------------------------------------------------------------------------- */

NAPI_MODULE_INIT() {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {
      {"netlink", netlink}, {"watch", watch},   {"serve", serve},
      {"hangUp", hang_up},  {"noticeDeath", notice_death}, {"pair", pair},
  };
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
      return broken(env, "nbd: the functions cannot be exported");
  }
  return exports;
}
