// Products of real rows with a matrix of packed signs: a handler for XLA's FFI.
//
// A byte holds the signs of eight inputs for one output, a set bit for +1. The sum of
// four inputs with the signs of half a byte is one of sixteen numbers, which fit into a
// register: a permutation of it looks up a column in each lane.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

constexpr int kBytes = 8;          // of a column at a time: sixteen tables
constexpr int64_t kColumns = 512;  // of a task at least

// Tables of `bytes` x 8 inputs from `x`, of which `inputs` are there; the rest count 0.
void Tables(const float* x, int64_t inputs, int bytes, float tables[][16]) {
  for (int half = 0; half < 2 * bytes; ++half) {
    float four[4] = {};
    for (int i = 0; i < 4 && half * 4 + i < inputs; ++i) four[i] = x[half * 4 + i];
    for (int signs = 0; signs < 16; ++signs) {
      float sum = 0;
      for (int i = 0; i < 4; ++i) sum += signs >> i & 1 ? four[i] : -four[i];
      tables[half][signs] = sum;
    }
  }
}

// The bytes of fewer than a vector of columns, one after the other.
void Rest(const float tables[][16], const uint8_t* packed, int64_t stride, int bytes,
          int64_t begin, int64_t end, float* y) {
  for (int64_t column = begin; column < end; ++column)
    for (int i = 0; i < bytes; ++i) {
      const uint8_t byte = packed[i * stride + column];
      y[column] += tables[2 * i][byte & 15] + tables[2 * i + 1][byte >> 4];
    }
}

__attribute__((target("avx512f"))) int64_t Wide(const float tables[][16],
                                                const uint8_t* packed, int64_t stride,
                                                int64_t begin, int64_t end, float* y) {
  __m512 low[kBytes], high[kBytes];
  for (int i = 0; i < kBytes; ++i) {
    low[i] = _mm512_loadu_ps(tables[2 * i]);
    high[i] = _mm512_loadu_ps(tables[2 * i + 1]);
  }
  for (; begin + 16 <= end; begin += 16) {
    __m512 sum = _mm512_loadu_ps(y + begin), other = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int i = 0; i < kBytes; ++i) {
      const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(
          reinterpret_cast<const __m128i*>(packed + i * stride + begin)));
      // Of an index only the low four bits count.
      sum = _mm512_add_ps(sum, _mm512_permutexvar_ps(bytes, low[i]));
      other = _mm512_add_ps(
          other, _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), high[i]));
    }
    _mm512_storeu_ps(y + begin, _mm512_add_ps(sum, other));
  }
  return begin;
}

// Tables of sixteen are two of eight, chosen between by the fourth bit.
__attribute__((target("avx2"))) inline __m256 Look(const float* table, __m256i index) {
  const __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  const __m256 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
  return _mm256_blendv_ps(first, second,
                          _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

__attribute__((target("avx2"))) int64_t Narrow(const float tables[][16],
                                               const uint8_t* packed, int64_t stride,
                                               int64_t begin, int64_t end, float* y) {
  for (; begin + 8 <= end; begin += 8) {
    __m256 sum = _mm256_loadu_ps(y + begin);
    for (int i = 0; i < kBytes; ++i) {
      const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(
          reinterpret_cast<const __m128i*>(packed + i * stride + begin)));
      sum = _mm256_add_ps(sum, Look(tables[2 * i], bytes));
      sum = _mm256_add_ps(sum, Look(tables[2 * i + 1], _mm256_srli_epi32(bytes, 4)));
    }
    _mm256_storeu_ps(y + begin, sum);
  }
  return begin;
}

int Bits() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return 512;
  return __builtin_cpu_supports("avx2") ? 256 : 0;
}

// Columns begin .. end of all rows.
void Block(const float* x, int64_t rows, int64_t inputs, const uint8_t* packed,
           int64_t height, int64_t columns, int64_t begin, int64_t end, int bits,
           float* y) {
  for (int64_t row = 0; row < rows; ++row)
    std::fill(y + row * columns + begin, y + row * columns + end, 0.0f);
  for (int64_t first = 0; first < height; first += kBytes) {
    const int bytes = std::min<int64_t>(kBytes, height - first);
    const uint8_t* here = packed + first * columns;
    for (int64_t row = 0; row < rows; ++row) {
      alignas(64) float tables[2 * kBytes][16];
      Tables(x + row * inputs + first * 8, inputs - first * 8, bytes, tables);
      float* sums = y + row * columns;
      int64_t done = begin;
      if (bytes == kBytes && bits == 512)
        done = Wide(tables, here, columns, begin, end, sums);
      else if (bytes == kBytes && bits == 256)
        done = Narrow(tables, here, columns, begin, end, sums);
      Rest(tables, here, columns, bytes, done, end, sums);
    }
  }
}

ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                   ffi::Buffer<ffi::U8> packed, ffi::ResultBuffer<ffi::F32> y,
                   int64_t bits) {
  if (x.dimensions().size() != 2 || packed.dimensions().size() != 2 ||
      y->dimensions().size() != 2)
    return ffi::Error::InvalidArgument("A packed product needs three matrices.");
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1];
  const int64_t height = packed.dimensions()[0], columns = packed.dimensions()[1];
  if (height != (inputs + 7) / 8 || y->dimensions()[0] != rows ||
      y->dimensions()[1] != columns)
    return ffi::Error::InvalidArgument("The shapes of a packed product do not fit.");
  const int width = std::min<int64_t>(bits, Bits());
  const int64_t most = std::max<int64_t>(1, columns / kColumns);
  const int64_t tasks = std::clamp<int64_t>(pool.num_threads(), 1, most);
  adaste::Parallel(pool, tasks, [&](int64_t i) {
    auto edge = [&](int64_t task) {  // whole vectors for all tasks but the last
      return task == tasks ? columns : columns * task / tasks / 16 * 16;
    };
    Block(x.typed_data(), rows, inputs, packed.typed_data(), height, columns, edge(i),
          edge(i + 1), width, y->typed_data());
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(AdastePackedMatmul, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("bits"));

// Bits of the widest vectors that are used here: 512, 256 or 0.
extern "C" int AdasteVectorBits() {
  return Bits();
}
