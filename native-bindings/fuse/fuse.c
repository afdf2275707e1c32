/*
 * The kernel's side of a file system in user space: mounting, and moving requests and replies between /dev/fuse and
 * JavaScript. What the bytes mean is not known here (src/wire/fuse).
 *
 * N-API version 8. Requests are read when the event loop sees that there are some, without waiting and several at a time,
 * into slots of one ArrayBuffer, so that the bytes of a write are never copied. A slot is read into again only after
 * JavaScript has given it back; while none is free the kernel keeps its requests.
 *
 * The headers of N-API do not bring uv.h. Of libuv only the few functions below are used, whose interface has not changed since
 * version 1.0 (uv_handle_size is made for callers that do not know the structures).
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <node_api.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../binding.h"

typedef struct uv_poll_s uv_poll_t;
typedef void (*uv_poll_cb)(uv_poll_t *handle, int status, int events);
typedef void (*uv_close_cb)(uv_poll_t *handle);
#define UV_POLL_TYPE 8
#define UV_READABLE_EVENT 1
extern size_t uv_handle_size(int type);
extern int uv_poll_init(struct uv_loop_s *loop, uv_poll_t *handle, int fd);
extern int uv_poll_start(uv_poll_t *handle, int events, uv_poll_cb callback);
extern int uv_poll_stop(uv_poll_t *handle);
extern void uv_close(uv_poll_t *handle, uv_close_cb callback);
extern void uv_handle_set_data(uv_poll_t *handle, void *data);
extern void *uv_handle_get_data(const uv_poll_t *handle);

#define ARGS_MAX 5
#define SLOTS_MAX 1024
#define SLOT_BYTES_MAX (16 * 1024 * 1024)
/* Requests read before JavaScript gets its turn. */
#define REQUESTS_PER_TURN 16
#define TEXT_MAX 4096

extern char **environ;

/* ---- mounting -------------------------------------------------------------------------------- */

/* openDevice() -> fd */
static napi_value open_device(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  return fd < 0 ? fail(env, errno, "open /dev/fuse") : number_or_throw(env, fd);
}

/* mount(source, target, type, flags, data) */
static napi_value mount_at(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  static char source[TEXT_MAX], target[TEXT_MAX], type[TEXT_MAX], data[TEXT_MAX];
  int64_t flags;
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], source, sizeof source) ||
      !get_text(env, args[1], target, sizeof target) || !get_text(env, args[2], type, sizeof type) ||
      !get_integer(env, args[3], UINT32_MAX, &flags) || !get_text(env, args[4], data, sizeof data))
    return NULL;
  return mount(source, target, type, (unsigned long)flags, data) == 0 ? NULL
                                                                      : fail(env, errno, "mount");
}

/* unmount(target, flags) */
static napi_value unmount_at(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  static char target[TEXT_MAX];
  int64_t flags;
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], target, sizeof target) ||
      !get_integer(env, args[1], INT_MAX, &flags))
    return NULL;
  return umount2(target, (int)flags) == 0 ? NULL : fail(env, errno, "umount");
}

/* The descriptor fusermount3 sends over its socket; -1 when it closes that without one. */
static int receive_fd(int socket) {
  char byte, control[CMSG_SPACE(sizeof(int))];
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof control};
  ssize_t length;
  do length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (length < 0 && errno == EINTR);
  struct cmsghdr *header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header == NULL || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

/*
 * mountAsUser(target, options) -> fd, or -1 when fusermount3 refused (it says why on stderr)
 * The set-uid helper mounts and hands the device over. Waits for it: it is gone at once.
 */
static napi_value mount_as_user(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  static char target[TEXT_MAX], options[TEXT_MAX];
  int sockets[2], status;
  pid_t pid;
  if (!get_args(env, info, args, ARGS_MAX) || !get_text(env, args[0], target, sizeof target) ||
      !get_text(env, args[1], options, sizeof options))
    return NULL;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return fail(env, errno, "socketpair");
  fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
  char text[32];
  snprintf(text, sizeof text, "%d", sockets[1]);
  setenv("_FUSE_COMMFD", text, 1);
  char *const words[] = {"fusermount3", "-o", options, "--", target, NULL};
  int error = posix_spawnp(&pid, words[0], NULL, NULL, words, environ);
  unsetenv("_FUSE_COMMFD");
  close(sockets[1]);
  if (error != 0) {
    close(sockets[0]);
    return fail(env, error, "fusermount3 (Debian: apt-get install fuse3)");
  }
  int fd = receive_fd(sockets[0]);
  close(sockets[0]);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (fd >= 0) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return number_or_throw(env, fd);
}

/* ---- requests -------------------------------------------------------------------------------- */

typedef struct {
  napi_env env;
  napi_async_context context;
  napi_ref callback, memory;
  uv_poll_t *poll;
  int fd;
  uint8_t *bytes;
  /* Slot and length of each request of a turn. */
  int32_t *ready;
  uint32_t slots, free_count;
  size_t slot_bytes;
  uint32_t *free;
  bool polling, over;
} port_t;

static void on_readable(uv_poll_t *poll, int status, int events);

static void tell(port_t *port, int count) {
  napi_handle_scope scope;
  napi_value callback, global, value;
  if (napi_open_handle_scope(port->env, &scope) != napi_ok) return;
  if (napi_get_reference_value(port->env, port->callback, &callback) == napi_ok &&
      napi_get_global(port->env, &global) == napi_ok &&
      napi_create_int32(port->env, count, &value) == napi_ok)
    napi_make_callback(port->env, port->context, global, callback, 1, &value, NULL);
  napi_close_handle_scope(port->env, scope);
}

static void set_polling(port_t *port, bool wanted) {
  if (port->poll == NULL || port->polling == wanted) return;
  port->polling = wanted;
  if (wanted)
    uv_poll_start(port->poll, UV_READABLE_EVENT, on_readable);
  else
    uv_poll_stop(port->poll);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  port_t *port = uv_handle_get_data(poll);
  (void)events;
  int count = 0, error = 0;
  while (error == 0 && count < REQUESTS_PER_TURN && port->free_count > 0) {
    uint32_t slot = port->free[port->free_count - 1];
    ssize_t length = read(port->fd, port->bytes + slot * port->slot_bytes, port->slot_bytes);
    if (length >= 0) {
      port->free_count--;
      port->ready[2 * count] = (int32_t)slot;
      port->ready[2 * count + 1] = (int32_t)length;
      count++;
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR && errno != ENOENT) {
      /* ENODEV: unmounted. (ENOENT: the request was taken back before it was read.) */
      error = errno;
    }
  }
  /* Poll itself complains about the end of a mount as of a bad descriptor; the read says what it is. */
  if (error == 0 && count == 0 && status < 0) error = -status;
  if (error != 0 || port->free_count == 0) set_polling(port, false);
  if (count > 0) tell(port, count);
  if (error != 0 && !port->over) {
    port->over = true;
    tell(port, -error);
  }
}

static void free_port(napi_env env, void *data, void *hint) {
  port_t *port = data;
  (void)env;
  (void)hint;
  if (port->poll != NULL) return; /* Still open: the process ends. */
  free(port->free);
  free(port);
}

static void closed(uv_poll_t *poll) {
  free(poll);
}

/*
 * serve(fd, slots, slotBytes, callback) -> { port, memory: ArrayBuffer, ready: Int32Array }
 * callback(count): so many pairs of slot and length are in `ready`; callback(-errno): the end.
 */
static napi_value serve(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int fd;
  int64_t slots, slot_bytes;
  napi_valuetype type;
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &fd) ||
      !get_integer(env, args[1], SLOTS_MAX, &slots) ||
      !get_integer(env, args[2], SLOT_BYTES_MAX, &slot_bytes))
    return NULL;
  if (napi_typeof(env, args[3], &type) != napi_ok || type != napi_function) {
    wrong_type(env, "fuse: a function is expected");
    return NULL;
  }
  if (slots == 0 || slot_bytes < 8192) {
    wrong_range(env, "fuse: slots of at least 8192 bytes are expected");
    return NULL;
  }
  port_t *port = calloc(1, sizeof *port);
  uint32_t *list = calloc((size_t)slots, sizeof *list);
  uv_poll_t *poll = calloc(1, uv_handle_size(UV_POLL_TYPE));
  struct uv_loop_s *loop = NULL;
  if (port == NULL || list == NULL || poll == NULL ||
      napi_get_uv_event_loop(env, &loop) != napi_ok) {
    free(port);
    free(list);
    free(poll);
    return fail(env, ENOMEM, "serve");
  }
  port->env = env;
  port->fd = fd;
  port->slots = port->free_count = (uint32_t)slots;
  port->slot_bytes = (size_t)slot_bytes;
  port->free = list;
  for (uint32_t i = 0; i < port->slots; i++) list[i] = port->slots - 1 - i;
  napi_value memory, pairs, ready, external, result, name;
  void *data = NULL, *numbers = NULL;
  bool made =
      napi_create_arraybuffer(env, (size_t)(slots * slot_bytes), &data, &memory) == napi_ok &&
      napi_create_arraybuffer(env, 2 * REQUESTS_PER_TURN * sizeof(int32_t), &numbers, &pairs) ==
          napi_ok &&
      napi_create_typedarray(env, napi_int32_array, 2 * REQUESTS_PER_TURN, pairs, 0, &ready) ==
          napi_ok &&
      napi_create_string_utf8(env, "sheepfs", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_async_init(env, NULL, name, &port->context) == napi_ok &&
      napi_create_reference(env, args[3], 1, &port->callback) == napi_ok &&
      napi_create_object(env, &result) == napi_ok &&
      napi_create_external(env, port, free_port, NULL, &external) == napi_ok &&
      napi_set_named_property(env, result, "port", external) == napi_ok &&
      napi_set_named_property(env, result, "memory", memory) == napi_ok &&
      napi_set_named_property(env, result, "ready", ready) == napi_ok &&
      /* The memory lives as long as the port reads into it. */
      napi_create_reference(env, result, 1, &port->memory) == napi_ok;
  int error = made ? uv_poll_init(loop, poll, fd) : -ENOMEM;
  if (error != 0) {
    free(poll);
    return fail(env, -error, "serve");
  }
  port->bytes = data;
  port->ready = numbers;
  port->poll = poll;
  uv_handle_set_data(poll, port);
  set_polling(port, true);
  return result;
}

static port_t *get_port(napi_env env, napi_value value) {
  void *port = NULL;
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_external &&
      napi_get_value_external(env, value, &port) == napi_ok)
    return port;
  wrong_type(env, "fuse: a port is expected");
  return NULL;
}

/* release(port, slot): it may be read into again. */
static napi_value release_slot(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  port_t *port;
  int64_t slot;
  if (!get_args(env, info, args, ARGS_MAX) || (port = get_port(env, args[0])) == NULL ||
      !get_integer(env, args[1], port->slots - 1, &slot))
    return NULL;
  if (port->free_count >= port->slots) {
    wrong_range(env, "fuse: more slots are given back than were taken");
    return NULL;
  }
  port->free[port->free_count++] = (uint32_t)slot;
  if (!port->over) set_polling(port, true);
  return NULL;
}

/* stop(port): reads no more. The descriptor stays open. */
static napi_value stop(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  port_t *port;
  if (!get_args(env, info, args, ARGS_MAX) || (port = get_port(env, args[0])) == NULL) return NULL;
  if (port->poll == NULL) return NULL;
  set_polling(port, false);
  port->over = true;
  uv_close(port->poll, closed);
  port->poll = NULL;
  napi_async_destroy(env, port->context);
  napi_delete_reference(env, port->callback);
  napi_delete_reference(env, port->memory);
  return NULL;
}

static bool get_piece(napi_env env, napi_value value, struct iovec *out) {
  uint8_t *data;
  if (!get_bytes(env, value, &data, &out->iov_len)) return false;
  out->iov_base = data;
  return true;
}

/* reply(fd, head, body | undefined) -> 0 or errno. The kernel takes a reply whole, without waiting. */
static napi_value reply(napi_env env, napi_callback_info info) {
  napi_value args[ARGS_MAX];
  int fd, parts = 1;
  struct iovec pieces[2];
  napi_valuetype type;
  if (!get_args(env, info, args, ARGS_MAX) || !get_fd(env, args[0], &fd) ||
      !get_piece(env, args[1], &pieces[0]) || napi_typeof(env, args[2], &type) != napi_ok)
    return NULL;
  if (type != napi_undefined) {
    if (!get_piece(env, args[2], &pieces[1])) return NULL;
    parts = 2;
  }
  ssize_t written;
  do written = writev(fd, pieces, parts);
  while (written < 0 && errno == EINTR);
  return number_or_throw(env, written < 0 ? errno : 0);
}

static napi_value init(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
#define FUNCTION(name, function) {name, NULL, function, NULL, NULL, NULL, napi_default, NULL}
      FUNCTION("openDevice", open_device), FUNCTION("mount", mount_at),
      FUNCTION("unmount", unmount_at),     FUNCTION("mountAsUser", mount_as_user),
      FUNCTION("serve", serve),            FUNCTION("release", release_slot),
      FUNCTION("stop", stop),              FUNCTION("reply", reply),
#undef FUNCTION
  };
  if (napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions) !=
      napi_ok)
    return NULL;
  return exports;
}

NAPI_MODULE(fuse, init)
