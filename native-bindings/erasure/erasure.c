/*
 * The byte work of erasure coding: stripes into strips and back, and sums of products over GF(2^8)
 * with the polynomial 0x11d. The same functions in TypeScript are in src/base/strips.ts; one test
 * runs both.
 *
 * A product by a constant is two look-ups in tables of 16 (low and high half of the byte) and an
 * exclusive or; processors that look up 16 or 32 bytes at once (SSSE3, AVX2, NEON) do that, chosen
 * when the addon is loaded, everything else uses one table of 256 per constant.
 *
 * N-API version 8 only, no state between calls but constant tables. Every argument is checked
 * before it is used; a wrong one throws a TypeError or RangeError and touches nothing.
 */
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define STRIPE_BYTES 512
#define DATA_MAX 16
#define FRAGMENTS_MAX 31
/* Bytes of every buffer worked on at a time: all of them together stay in the first cache. */
#define BLOCK_BYTES 2048

static uint8_t products[256][256];
/* products[c][0..15] and products[c][16 * 0..15], ready to be loaded. */
static uint8_t halves[256][32];

static void make_tables(void) {
  uint8_t exponents[510], logarithms[256] = {0};
  unsigned value = 1;
  for (unsigned power = 0; power < 255; power++) {
    exponents[power] = exponents[power + 255] = (uint8_t)value;
    logarithms[value] = (uint8_t)power;
    value <<= 1;
    if (value & 0x100) value ^= 0x11d;
  }
  for (unsigned a = 1; a < 256; a++)
    for (unsigned b = 1; b < 256; b++)
      products[a][b] = exponents[logarithms[a] + logarithms[b]];
  for (unsigned a = 0; a < 256; a++)
    for (unsigned b = 0; b < 16; b++) {
      halves[a][b] = products[a][b];
      halves[a][16 + b] = products[a][b << 4];
    }
}

/* ---- output ^= coefficient * input --------------------------------------------------------- */

typedef void add_product(uint8_t *output, const uint8_t *input, uint8_t coefficient, size_t length);

static void add_product_plain(uint8_t *output, const uint8_t *input, uint8_t coefficient,
                              size_t length) {
  const uint8_t *row = products[coefficient];
  for (size_t i = 0; i < length; i++) output[i] ^= row[input[i]];
}

#if defined(__x86_64__)
__attribute__((target("ssse3"))) static void add_product_ssse3(uint8_t *output,
                                                               const uint8_t *input,
                                                               uint8_t coefficient, size_t length) {
  const __m128i low = _mm_loadu_si128((const __m128i *)halves[coefficient]);
  const __m128i high = _mm_loadu_si128((const __m128i *)(halves[coefficient] + 16));
  const __m128i mask = _mm_set1_epi8(15);
  size_t i = 0;
  for (; i + 16 <= length; i += 16) {
    const __m128i in = _mm_loadu_si128((const __m128i *)(input + i));
    const __m128i a = _mm_shuffle_epi8(low, _mm_and_si128(in, mask));
    const __m128i b = _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi64(in, 4), mask));
    const __m128i out = _mm_loadu_si128((const __m128i *)(output + i));
    _mm_storeu_si128((__m128i *)(output + i), _mm_xor_si128(out, _mm_xor_si128(a, b)));
  }
  add_product_plain(output + i, input + i, coefficient, length - i);
}

__attribute__((target("avx2"))) static void add_product_avx2(uint8_t *output, const uint8_t *input,
                                                             uint8_t coefficient, size_t length) {
  const __m256i low =
      _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)halves[coefficient]));
  const __m256i high =
      _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(halves[coefficient] + 16)));
  const __m256i mask = _mm256_set1_epi8(15);
  size_t i = 0;
  for (; i + 32 <= length; i += 32) {
    const __m256i in = _mm256_loadu_si256((const __m256i *)(input + i));
    const __m256i a = _mm256_shuffle_epi8(low, _mm256_and_si256(in, mask));
    const __m256i b = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64(in, 4), mask));
    const __m256i out = _mm256_loadu_si256((const __m256i *)(output + i));
    _mm256_storeu_si256((__m256i *)(output + i), _mm256_xor_si256(out, _mm256_xor_si256(a, b)));
  }
  add_product_plain(output + i, input + i, coefficient, length - i);
}
#elif defined(__aarch64__)
static void add_product_neon(uint8_t *output, const uint8_t *input, uint8_t coefficient,
                             size_t length) {
  const uint8x16_t low = vld1q_u8(halves[coefficient]);
  const uint8x16_t high = vld1q_u8(halves[coefficient] + 16);
  const uint8x16_t mask = vdupq_n_u8(15);
  size_t i = 0;
  for (; i + 16 <= length; i += 16) {
    const uint8x16_t in = vld1q_u8(input + i);
    const uint8x16_t a = vqtbl1q_u8(low, vandq_u8(in, mask));
    const uint8x16_t b = vqtbl1q_u8(high, vshrq_n_u8(in, 4));
    vst1q_u8(output + i, veorq_u8(vld1q_u8(output + i), veorq_u8(a, b)));
  }
  add_product_plain(output + i, input + i, coefficient, length - i);
}
#endif

static add_product *fastest = add_product_plain;
static const char *fastest_name = "plain";

static void choose_fastest(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) {
    fastest = add_product_avx2;
    fastest_name = "avx2";
  } else if (__builtin_cpu_supports("ssse3")) {
    fastest = add_product_ssse3;
    fastest_name = "ssse3";
  }
#elif defined(__aarch64__)
  fastest = add_product_neon;
  fastest_name = "neon";
#endif
}

/* ---- arguments ----------------------------------------------------------------------------- */

struct bytes {
  uint8_t *at;
  size_t length;
};

static bool wrong(napi_env env, const char *what) {
  napi_throw_range_error(env, NULL, what);
  return false;
}

static bool get_bytes(napi_env env, napi_value value, struct bytes *bytes) {
  napi_typedarray_type type;
  void *data;
  if (napi_get_typedarray_info(env, value, &type, &bytes->length, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array) {
    napi_throw_type_error(env, NULL, "erasure: a Uint8Array is expected");
    return false;
  }
  bytes->at = data;
  return true;
}

/* Buffers of one length; their number goes to `count`. */
static bool get_list(napi_env env, napi_value value, struct bytes list[FRAGMENTS_MAX],
                     uint32_t *count) {
  if (napi_get_array_length(env, value, count) != napi_ok) {
    napi_throw_type_error(env, NULL, "erasure: an array of Uint8Arrays is expected");
    return false;
  }
  if (*count > FRAGMENTS_MAX) return wrong(env, "erasure: too many fragments");
  for (uint32_t i = 0; i < *count; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok) return false;
    if (!get_bytes(env, element, &list[i])) return false;
    if (list[i].length != list[0].length)
      return wrong(env, "erasure: the fragments differ in length");
  }
  return true;
}

static bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t wanted) {
  size_t count = wanted;
  if (napi_get_cb_info(env, info, &count, args, NULL, NULL) == napi_ok && count == wanted)
    return true;
  napi_throw_type_error(env, NULL, "erasure: wrong number of arguments");
  return false;
}

/* Strip size, or 0 after throwing. */
static size_t check_cut(napi_env env, size_t bytes, const struct bytes *list, uint32_t count) {
  if (count == 0 || count > DATA_MAX || (count & (count - 1)) != 0 || bytes % STRIPE_BYTES != 0 ||
      list[0].length * count != bytes) {
    wrong(env, "strips do not fit the data");
    return 0;
  }
  return STRIPE_BYTES / count;
}

/* ---- functions ----------------------------------------------------------------------------- */

/* split(data, fragments) */
static napi_value split(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct bytes data, list[FRAGMENTS_MAX];
  uint32_t count;
  if (!get_args(env, info, args, 2) || !get_bytes(env, args[0], &data) ||
      !get_list(env, args[1], list, &count))
    return NULL;
  const size_t strip = check_cut(env, data.length, list, count);
  if (strip == 0) return NULL;
  for (size_t stripe = 0; stripe < data.length / STRIPE_BYTES; stripe++)
    for (uint32_t i = 0; i < count; i++)
      memcpy(list[i].at + stripe * strip, data.at + stripe * STRIPE_BYTES + i * strip, strip);
  return NULL;
}

/* join(fragments, data) */
static napi_value join(napi_env env, napi_callback_info info) {
  napi_value args[2];
  struct bytes data, list[FRAGMENTS_MAX];
  uint32_t count;
  if (!get_args(env, info, args, 2) || !get_list(env, args[0], list, &count) ||
      !get_bytes(env, args[1], &data))
    return NULL;
  const size_t strip = check_cut(env, data.length, list, count);
  if (strip == 0) return NULL;
  for (size_t stripe = 0; stripe < data.length / STRIPE_BYTES; stripe++)
    for (uint32_t i = 0; i < count; i++)
      memcpy(data.at + stripe * STRIPE_BYTES + i * strip, list[i].at + stripe * strip, strip);
  return NULL;
}

/* mix(coefficients, inputs, outputs) */
static napi_value mix(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct bytes coefficients, inputs[FRAGMENTS_MAX], outputs[FRAGMENTS_MAX];
  uint32_t in, out;
  if (!get_args(env, info, args, 3) || !get_bytes(env, args[0], &coefficients) ||
      !get_list(env, args[1], inputs, &in) || !get_list(env, args[2], outputs, &out))
    return NULL;
  if (in == 0 || coefficients.length != (size_t)in * out ||
      (out > 0 && outputs[0].length != inputs[0].length)) {
    wrong(env, "fragments and coefficients do not fit");
    return NULL;
  }
  const size_t length = inputs[0].length;
  for (size_t at = 0; at < length; at += BLOCK_BYTES) {
    const size_t block = length - at < BLOCK_BYTES ? length - at : BLOCK_BYTES;
    for (uint32_t r = 0; r < out; r++) {
      memset(outputs[r].at + at, 0, block);
      for (uint32_t c = 0; c < in; c++) {
        const uint8_t coefficient = coefficients.at[r * in + c];
        if (coefficient != 0) fastest(outputs[r].at + at, inputs[c].at + at, coefficient, block);
      }
    }
  }
  return NULL;
}

NAPI_MODULE_INIT() {
  const struct {
    const char *name;
    napi_callback call;
  } functions[] = {{"split", split}, {"join", join}, {"mix", mix}};
  make_tables();
  choose_fastest();
  napi_value name;
  if (napi_create_string_utf8(env, fastest_name, NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_set_named_property(env, exports, "name", name) != napi_ok) {
    napi_throw_error(env, NULL, "erasure: the name cannot be exported");
    return NULL;
  }
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      napi_throw_error(env, NULL, "erasure: the functions cannot be exported");
      return NULL;
    }
  }
  return exports;
}
