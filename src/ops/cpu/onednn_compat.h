// The one difference between oneDNN 2 and 3 that matters here: how a matmul is described.
#pragma once

#include <dnnl.hpp>

namespace runahead::cpu {

/// `bias` may be the empty descriptor. Throws dnnl::error when the library has no such matmul.
inline dnnl::matmul::primitive_desc DescribeMatmul(const dnnl::engine& engine, const dnnl::memory::desc& source,
                                                   const dnnl::memory::desc& weights, const dnnl::memory::desc& bias,
                                                   const dnnl::memory::desc& destination,
                                                   const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR < 3
  return {dnnl::matmul::desc(source, weights, bias, destination), attributes, engine};
#else
  return {engine, source, weights, bias, destination, attributes};
#endif
}

}  // namespace runahead::cpu
