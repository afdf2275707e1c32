/*
 * What a service manager and its service have between them, and Node has no call for: one datagram to a
 * unix socket (sd_notify(3)), and a second descriptor for a socket that was passed in (sd_listen_fds(3)).
 *
 * N-API version 8 only, no state. Arguments are checked first; a failed system call throws an Error with
 * `code`, `errno` and `syscall`, as Node's own.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <node_api.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* More than any state the manager reads; it drops longer ones itself. */
#define TEXT_BYTES_MAX 4096

static napi_value fail(napi_env env, int number, const char *syscall) {
  /* Those a caller tells apart; the text names every other one. */
  const char *name = number == EAGAIN         ? "EAGAIN"
                     : number == ECONNREFUSED ? "ECONNREFUSED"
                     : number == ENOENT       ? "ENOENT"
                     : number == EACCES       ? "EACCES"
                     : number == EBADF        ? "EBADF"
                     : number == EMFILE       ? "EMFILE"
                                              : "UNKNOWN";
  char text[256];
  napi_value code, message, error, value;
  snprintf(text, sizeof text, "%s: %s, %s", name, strerror(number), syscall);
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) == napi_ok &&
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
      napi_create_error(env, code, message, &error) == napi_ok &&
      napi_create_int32(env, -number, &value) == napi_ok &&
      napi_set_named_property(env, error, "errno", value) == napi_ok &&
      napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &value) == napi_ok &&
      napi_set_named_property(env, error, "syscall", value) == napi_ok)
    napi_throw(env, error);
  return NULL;
}

static napi_value refuse(napi_env env, const char *what) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", what);
  return NULL;
}

/* False with an exception pending. `size` counts the NUL. */
static bool get_text(napi_env env, napi_value value, char *into, size_t size, size_t *length) {
  size_t wanted;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &wanted) != napi_ok) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "service: a string is expected");
    return false;
  }
  if (wanted == 0 || wanted >= size) {
    refuse(env, "service: the string is empty or too long");
    return false;
  }
  return napi_get_value_string_utf8(env, value, into, size, length) == napi_ok;
}

/*
 * notify(socket, text): one datagram; `socket` is a path, or a name in the abstract namespace behind '@'. Never
 * waits: a manager that does not read its queue is EAGAIN.
 */
static napi_value notify(napi_env env, napi_callback_info info) {
  napi_value args[2];
  size_t count = 2, name_length, text_length;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char name[sizeof address.sun_path + 1];
  char text[TEXT_BYTES_MAX + 1];
  if (napi_get_cb_info(env, info, &count, args, NULL, NULL) != napi_ok) return NULL;
  if (!get_text(env, args[0], name, sizeof name, &name_length)) return NULL;
  if (!get_text(env, args[1], text, sizeof text, &text_length)) return NULL;
  if ((name[0] != '/' && name[0] != '@') || name_length < 2)
    return refuse(env, "service: the socket is neither a path nor an abstract name");
  if (strlen(name) != name_length) return refuse(env, "service: the name of the socket holds a NUL");
  memcpy(address.sun_path, name, name_length);
  if (name[0] == '@') address.sun_path[0] = '\0';
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_length);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(env, errno, "socket");
  ssize_t sent;
  do sent = sendto(fd, text, text_length, MSG_NOSIGNAL | MSG_DONTWAIT, (void *)&address, length);
  while (sent < 0 && errno == EINTR);
  int number = errno;
  close(fd);
  return sent < 0 ? fail(env, number, "sendto") : NULL;
}

/* duplicate(fd) -> another descriptor of the same open file, not inherited by children */
static napi_value duplicate(napi_env env, napi_callback_info info) {
  napi_value args[1], result;
  size_t count = 1;
  double number;
  if (napi_get_cb_info(env, info, &count, args, NULL, NULL) != napi_ok) return NULL;
  if (napi_get_value_double(env, args[0], &number) != napi_ok || !(number >= 0) ||
      number > INT_MAX || number != (double)(int)number)
    return refuse(env, "service: a descriptor is expected");
  int copy = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return fail(env, errno, "fcntl");
  if (napi_create_int32(env, copy, &result) == napi_ok) return result;
  close(copy);
  napi_throw_error(env, NULL, "service: the result cannot be made");
  return NULL;
}

NAPI_MODULE_INIT() {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {{"notify", notify}, {"duplicate", duplicate}};
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      napi_throw_error(env, NULL, "service: the functions cannot be exported");
      return NULL;
    }
  }
  return exports;
}
