/*
 * What the bindings share, each of which is one source file: arguments as they come from JavaScript, checked, and errors of
 * system calls in the shape of Node's own: `code` is the errno name, `errno` its negative number, `syscall` the call.
 */
#pragma once
#include <errno.h>
#include <limits.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define MAX_SAFE_INTEGER 9007199254740991.0

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct {
  int number;
  const char *name;
} ERRNO_NAMES[] = {
#define NAME(code) {code, #code}
    NAME(E2BIG), NAME(EACCES), NAME(EAFNOSUPPORT), NAME(EAGAIN), NAME(EBADF), NAME(EBUSY),
    NAME(ECANCELED), NAME(EDEADLK), NAME(EDQUOT), NAME(EEXIST), NAME(EFAULT), NAME(EFBIG),
    NAME(EINTR), NAME(EINVAL), NAME(EIO), NAME(EISDIR), NAME(ELOOP), NAME(EMFILE), NAME(EMLINK),
    NAME(EMSGSIZE), NAME(ENAMETOOLONG), NAME(ENFILE), NAME(ENOBUFS), NAME(ENODATA), NAME(ENODEV),
    NAME(ENOENT), NAME(ENOLCK), NAME(ENOMEDIUM), NAME(ENOMEM), NAME(ENOSPC), NAME(ENOSYS),
    NAME(ENOTDIR), NAME(ENOTSUP), NAME(ENOTTY), NAME(ENXIO), NAME(EOVERFLOW), NAME(EPERM),
    NAME(EPIPE), NAME(EPROTONOSUPPORT), NAME(ERANGE), NAME(EREMOTEIO), NAME(EROFS),
    NAME(ESHUTDOWN), NAME(ESPIPE), NAME(ESTALE), NAME(ETIMEDOUT), NAME(ETXTBSY), NAME(EUCLEAN),
    NAME(EXDEV),
#undef NAME
};

static inline const char *errno_name(int number) {
  for (size_t i = 0; i < sizeof ERRNO_NAMES / sizeof ERRNO_NAMES[0]; i++)
    if (ERRNO_NAMES[i].number == number) return ERRNO_NAMES[i].name;
  return "UNKNOWN";
}

/* An Error in the shape of Node's own. NULL when even that failed; an exception is pending then. */
static inline napi_value make_error(napi_env env, int number, const char *syscall) {
  char text[256];
  napi_value code, message, error, value;
  snprintf(text, sizeof text, "%s: %s, %s", errno_name(number), strerror(number), syscall);
  if (napi_create_string_utf8(env, errno_name(number), NAPI_AUTO_LENGTH, &code) != napi_ok ||
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok ||
      napi_create_error(env, code, message, &error) != napi_ok ||
      napi_create_int32(env, -number, &value) != napi_ok ||
      napi_set_named_property(env, error, "errno", value) != napi_ok ||
      napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &value) != napi_ok ||
      napi_set_named_property(env, error, "syscall", value) != napi_ok)
    return NULL;
  return error;
}

static inline napi_value fail(napi_env env, int number, const char *syscall) {
  napi_value error = make_error(env, number, syscall);
  if (error != NULL) napi_throw(env, error);
  return NULL;
}

static inline bool wrong_type(napi_env env, const char *what) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", what);
  return false;
}

static inline bool wrong_range(napi_env env, const char *what) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", what);
  return false;
}

static inline napi_value broken(napi_env env, const char *what) {
  napi_throw_error(env, NULL, what);
  return NULL;
}

/* ---- arguments ------------------------------------------------------------------------------- */

/* Missing arguments arrive as undefined and are refused by their own checks. */
static inline bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t count) {
  if (napi_get_cb_info(env, info, &count, args, NULL, NULL) == napi_ok) return true;
  broken(env, "the arguments cannot be read");
  return false;
}

/* From 0 to `max`, which is no more than MAX_SAFE_INTEGER. */
static inline bool get_integer(napi_env env, napi_value value, double max, int64_t *out) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok)
    return wrong_type(env, "a number is expected");
  /* In range first: casting anything larger (or a NaN) would be undefined. */
  if (!(number >= 0 && number <= max) || number != (double)(int64_t)number)
    return wrong_range(env, "a whole number in range is expected");
  *out = (int64_t)number;
  return true;
}

static inline bool get_fd(napi_env env, napi_value value, int *out) {
  int64_t number;
  if (!get_integer(env, value, INT_MAX, &number)) return false;
  *out = (int)number;
  return true;
}

static inline bool get_offset(napi_env env, napi_value value, off_t *out) {
  int64_t number;
  if (!get_integer(env, value, MAX_SAFE_INTEGER, &number)) return false;
  *out = (off_t)number;
  return true;
}

/* Borrowed: valid until control goes back to JavaScript. */
static inline bool get_bytes(napi_env env, napi_value value, uint8_t **data, size_t *length) {
  bool is_typed = false;
  napi_typedarray_type type;
  void *memory;
  if (napi_is_typedarray(env, value, &is_typed) != napi_ok || !is_typed ||
      napi_get_typedarray_info(env, value, &type, length, &memory, NULL, NULL) != napi_ok ||
      type != napi_uint8_array)
    return wrong_type(env, "a Uint8Array is expected");
  *data = memory;
  return true;
}

/* `size` counts the NUL. Refuses what does not fit and what would end early at a NUL inside. */
static inline bool get_text(napi_env env, napi_value value, char *into, size_t size) {
  size_t length, copied;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok)
    return wrong_type(env, "a string is expected");
  if (length == 0) return wrong_range(env, "the string is empty");
  if (length >= size) return wrong_range(env, "the string is too long");
  if (napi_get_value_string_utf8(env, value, into, size, &copied) != napi_ok)
    return wrong_type(env, "the string cannot be read");
  if (strlen(into) != length) return wrong_range(env, "the string holds a NUL");
  return true;
}

/* ---- results --------------------------------------------------------------------------------- */

static inline napi_value number_or_throw(napi_env env, int64_t value) {
  napi_value result;
  if (napi_create_int64(env, value, &result) == napi_ok) return result;
  return broken(env, "the result cannot be made");
}
