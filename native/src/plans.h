// Plans of oneDNN for the convolutions of one shape: which layouts it wants, and what runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Numbers = ffi::Span<const int64_t>;
using Dims = memory::dims;

enum class Kind { kForward, kInputs, kKernel };

struct Options {
  Numbers strides, low, high, dilation;
  int64_t groups;
};

// A primitive for one shape, and the layouts that it wants.
struct Plan {
  dnnl::primitive primitive;
  memory::desc inputs, kernel, outputs, scratch;
};

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

memory::data_type Type(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::DataType::F32 ? memory::data_type::f32
                                                     : memory::data_type::bf16;
}

// Strides of a dense array, last axis fastest.
Dims Strides(ffi::Span<const int64_t> shape) {
  Dims strides(shape.size(), 1);
  for (int64_t i = shape.size() - 2; i >= 0; --i)
    strides[i] = strides[i + 1] * shape[i + 1];
  return strides;
}

// [batch, spatial..., channels], named as oneDNN does: batch, channels, spatial.
memory::desc Activations(const ffi::AnyBuffer& buffer, int64_t batch) {
  auto shape = buffer.dimensions();
  Dims strides = Strides(shape), dims{batch, shape.back()}, steps{strides[0], 1};
  dims.insert(dims.end(), shape.begin() + 1, shape.end() - 1);
  steps.insert(steps.end(), strides.begin() + 1, strides.end() - 1);
  return memory::desc(dims, Type(buffer), steps);
}

// [spatial..., in, out] as groups (if there are several), out, in, spatial.
memory::desc Kernel(const ffi::AnyBuffer& buffer, int64_t groups,
                    memory::data_type type) {
  auto shape = buffer.dimensions();
  const size_t spatial = shape.size() - 2;
  Dims strides = Strides(shape), dims, steps;
  const int64_t outputs = shape.back() / groups;
  if (groups > 1) {
    dims = {groups};
    steps = {outputs};
  }
  dims.insert(dims.end(), {outputs, shape[spatial]});
  steps.insert(steps.end(), {1, strides[spatial]});
  dims.insert(dims.end(), shape.begin(), shape.begin() + spatial);
  steps.insert(steps.end(), strides.begin(), strides.begin() + spatial);
  return memory::desc(dims, type, steps);
}

memory::desc AnyLayout(const memory::desc& desc) {
  return memory::desc(desc.get_dims(), desc.get_data_type(), memory::format_tag::any);
}

Plan Make(Kind kind, const memory::desc& x, const memory::desc& w,
          const memory::desc& y, const Options& options) {
  auto dims = [](Numbers numbers) { return Dims(numbers.begin(), numbers.end()); };
  const Dims strides = dims(options.strides), low = dims(options.low),
             high = dims(options.high);
  Dims dilation = dims(options.dilation);
  for (auto& number : dilation) --number;  // oneDNN counts the gaps
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
  // Gradients of bfloat16 kernels are summed in float32; the hint has one dtype.
  const memory::desc hint(w.get_dims(), x.get_data_type(), memory::format_tag::any);
  dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, x, hint, y, strides,
      dilation, low, high, attributes);
  if (kind == Kind::kForward)
    return {dnnl::convolution_forward(forward), forward.src_desc(),
            forward.weights_desc(), forward.dst_desc(), forward.scratchpad_desc()};
  if (kind == Kind::kInputs) {
    dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), direct, x, hint, y, strides, dilation, low, high, forward,
        attributes);
    return {dnnl::convolution_backward_data(backward), backward.diff_src_desc(),
            backward.weights_desc(), backward.diff_dst_desc(),
            backward.scratchpad_desc()};
  }
  dnnl::convolution_backward_weights::primitive_desc backward(
      Engine(), direct, x, AnyLayout(w), y, strides, dilation, low, high, forward,
      attributes);
  return {dnnl::convolution_backward_weights(backward), backward.src_desc(),
          backward.diff_weights_desc(), backward.diff_dst_desc(),
          backward.scratchpad_desc()};
}

// Plans are made once for each shape. They are made on one thread, for one thread.
std::shared_ptr<const Plan> Find(Kind kind, const memory::desc& x,
                                 const memory::desc& w, const memory::desc& y,
                                 const Options& options) {
  static auto* mutex = new std::mutex;
  static auto* plans = new std::map<std::vector<int64_t>, std::shared_ptr<const Plan>>;
  std::vector<int64_t> key{static_cast<int64_t>(kind), options.groups,
                           static_cast<int64_t>(x.get_data_type())};
  for (auto* desc : {&x, &w, &y})
    for (int64_t dim : desc->get_dims()) key.push_back(dim);
  for (auto numbers : {options.strides, options.low, options.high, options.dilation})
    key.insert(key.end(), numbers.begin(), numbers.end());
  std::lock_guard<std::mutex> lock(*mutex);
  auto& plan = (*plans)[key];
  if (!plan) plan = std::make_shared<const Plan>(Make(kind, x, w, y, options));
  return plan;
}

}  // namespace
