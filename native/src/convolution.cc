// Convolutions and their gradients by oneDNN: handlers for XLA's FFI.
//
// Arrays are as Flax has them: [batch, spatial..., channels], kernels
// [spatial..., in / groups, out]. The batch is cut into a piece for each of XLA's threads;
// in each, oneDNN runs on one thread. Its own team of OpenMP threads would wait actively
// between calls, beside XLA's.

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "parallel.h"
#include "plans.h"
#include "xla/ffi/api/ffi.h"

namespace {

// Memory that a thread keeps from call to call: new pages cost more than the work.
struct Buffer {
  void* data = nullptr;
  size_t size = 0;
  ~Buffer() { std::free(data); }
  void* Get(size_t wanted) {
    if (wanted > size || !data) {
      std::free(data);
      size = (std::max<size_t>(wanted, 1) + 4095) / 4096 * 4096;
      data = std::aligned_alloc(64, size);
      if (!data) {
        size = 0;
        throw std::bad_alloc();
      }
    }
    return data;
  }
};

// oneDNN on one thread, for as long as this lives.
struct OneThread {
  int before = omp_get_max_threads();
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before); }
};

void Copy(const memory& from, const memory& to, dnnl::stream& stream) {
  auto source = from, target = to;
  dnnl::reorder(source, target).execute(stream, source, target);
}

char* Row(const ffi::AnyBuffer& buffer, int64_t row) {
  return static_cast<char*>(buffer.untyped_data()) +
         buffer.size_bytes() / buffer.dimensions()[0] * row;
}

// Examples begin .. begin + batch; the gradient of a kernel goes to `sums`, in float32.
void Piece(Kind kind, const ffi::AnyBuffer& x, const ffi::AnyBuffer& w, float* sums,
           const ffi::AnyBuffer& y, int64_t begin, int64_t batch,
           const Options& options) {
  thread_local Buffer kernel_buffer, scratch_buffer;
  OneThread one_thread;
  dnnl::stream stream(Engine());
  const bool gradient = kind == Kind::kKernel;
  const auto x_desc = Activations(x, batch), y_desc = Activations(y, batch);
  const auto w_desc =
      Kernel(w, options.groups, gradient ? memory::data_type::f32 : Type(w));
  const auto plan = Find(kind, x_desc, w_desc, y_desc, options);
  memory inputs(x_desc, Engine(), Row(x, begin));
  memory outputs(y_desc, Engine(), Row(y, begin));
  memory plain(w_desc, Engine(), gradient ? sums : w.untyped_data());
  const bool same = plan->kernel == w_desc;
  memory kernel = same ? plain
                       : memory(plan->kernel, Engine(),
                                kernel_buffer.Get(plan->kernel.get_size()));
  memory scratch(plan->scratch, Engine(),
                 scratch_buffer.Get(plan->scratch.get_size()));
  if (!same && !gradient) Copy(plain, kernel, stream);
  const bool inward = kind == Kind::kInputs;
  plan->primitive.execute(
      stream, {{inward ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, inputs},
               {gradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, kernel},
               {kind == Kind::kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, outputs},
               {DNNL_ARG_SCRATCHPAD, scratch}});
  if (!same && gradient) Copy(kernel, plain, stream);
  stream.wait();
}

// What oneDNN does not look at before it reads memory.
ffi::Error Check(const ffi::AnyBuffer& x, const ffi::AnyBuffer& w,
                 const ffi::AnyBuffer& y, const Options& options) {
  auto wrong = [](const char* what) { return ffi::Error::InvalidArgument(what); };
  const size_t rank = x.dimensions().size();
  if (rank < 3 || rank > 5 || w.dimensions().size() != rank ||
      y.dimensions().size() != rank)
    return wrong("A convolution needs arrays of the same rank, 3 to 5.");
  for (auto numbers : {options.strides, options.low, options.high, options.dilation})
    if (numbers.size() != rank - 2)
      return wrong("Strides, padding and dilation need a number for each axis.");
  const auto type = x.element_type();
  if ((type != ffi::DataType::F32 && type != ffi::DataType::BF16) ||
      w.element_type() != type || y.element_type() != type)
    return wrong("A convolution needs arrays of one dtype, float32 or bfloat16.");
  for (const auto* buffer : {&x, &w, &y})
    for (int64_t dim : buffer->dimensions())
      if (dim < 1) return wrong("A convolution needs arrays that are not empty.");
  const int64_t groups = options.groups;
  if (groups < 1 || w.dimensions().back() % groups ||
      w.dimensions()[rank - 2] * groups != x.dimensions().back() ||
      w.dimensions().back() != y.dimensions().back() ||
      x.dimensions()[0] != y.dimensions()[0])
    return wrong("The shapes of a convolution do not fit.");
  return ffi::Error::Success();
}

ffi::Error Run(Kind kind, ffi::ThreadPool& pool, const ffi::AnyBuffer& x,
               const ffi::AnyBuffer& w, const ffi::AnyBuffer& y,
               const Options& options) {
  if (ffi::Error error = Check(x, w, y, options); error.failure()) return error;
  const int64_t batch = x.dimensions()[0];
  const int64_t pieces = std::clamp<int64_t>(pool.num_threads(), 1, batch);
  const bool gradient = kind == Kind::kKernel;
  const bool in_place = gradient && w.element_type() == ffi::DataType::F32;
  const size_t count = w.element_count();
  std::mutex mutex;
  std::string failure;
  try {
    std::vector<std::unique_ptr<float[]>> sums(gradient ? pieces : 0);
    for (size_t i = in_place; i < sums.size(); ++i) sums[i].reset(new float[count]);
    auto sum = [&](int64_t i) {
      if (!gradient) return static_cast<float*>(nullptr);
      return in_place && i == 0 ? static_cast<float*>(w.untyped_data())
                                : sums[i].get();
    };
    adaste::Parallel(pool, pieces, [&](int64_t i) {
      try {
        const int64_t begin = batch * i / pieces, end = batch * (i + 1) / pieces;
        Piece(kind, x, w, sum(i), y, begin, end - begin, options);
      } catch (const std::exception& error) {
        std::lock_guard<std::mutex> lock(mutex);
        failure = error.what();
      }
    });
    if (!failure.empty()) return ffi::Error::Internal("oneDNN: " + failure);
    for (int64_t i = 1; gradient && i < pieces; ++i)
      for (size_t j = 0; j < count; ++j) sum(0)[j] += sum(i)[j];
    if (gradient && !in_place) {
      OneThread one_thread;
      dnnl::stream stream(Engine());
      Copy(memory(Kernel(w, options.groups, memory::data_type::f32), Engine(), sum(0)),
           memory(Kernel(w, options.groups, Type(w)), Engine(), w.untyped_data()),
           stream);
      stream.wait();
    }
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer w,
                   ffi::Result<ffi::AnyBuffer> y, Numbers strides, Numbers low,
                   Numbers high, Numbers dilation, int64_t groups) {
  return Run(Kind::kForward, pool, x, w, *y, {strides, low, high, dilation, groups});
}

ffi::Error Inputs(ffi::ThreadPool pool, ffi::AnyBuffer y, ffi::AnyBuffer w,
                  ffi::Result<ffi::AnyBuffer> x, Numbers strides, Numbers low,
                  Numbers high, Numbers dilation, int64_t groups) {
  return Run(Kind::kInputs, pool, *x, w, y, {strides, low, high, dilation, groups});
}

ffi::Error KernelGradient(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y,
                          ffi::Result<ffi::AnyBuffer> w, Numbers strides, Numbers low,
                          Numbers high, Numbers dilation, int64_t groups) {
  return Run(Kind::kKernel, pool, x, *w, y, {strides, low, high, dilation, groups});
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("low")
      .Attr<Numbers>("high")
      .Attr<Numbers>("dilation")
      .Attr<int64_t>("groups");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(AdasteConvolution, Forward, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(AdasteConvolutionInputs, Inputs, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(AdasteConvolutionKernel, KernelGradient, Binding());

// Whether oneDNN has fast convolutions for bfloat16 on this machine.
extern "C" int AdasteHasBfloat16() {
  const auto isa = dnnl::get_effective_cpu_isa();
  using dnnl::cpu_isa;
  return isa == cpu_isa::avx512_core_bf16 || isa == cpu_isa::avx512_core_fp16 ||
         isa == cpu_isa::avx512_core_amx || isa == cpu_isa::avx512_core_amx_fp16;
}
