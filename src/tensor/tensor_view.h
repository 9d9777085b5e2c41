// A tensor that somebody else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "tensor/dtype.h"

namespace runahead {

/// The extents of a tensor of up to four dimensions, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    CHECK_LE(extents.size(), size_t{kMaxRank});
    for (const int64_t extent : extents) extents_[static_cast<size_t>(rank_++)] = extent;
  }

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int64_t operator[](int i) const { return extents_[static_cast<size_t>(i)]; }
  [[nodiscard]] int64_t elements() const {
    int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= (*this)[i];
    return product;
  }
  /// Elements of one row: all dimensions but the first.
  [[nodiscard]] int64_t row_elements() const {
    int64_t product = 1;
    for (int i = 1; i < rank_; ++i) product *= (*this)[i];
    return product;
  }
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  static constexpr int kMaxRank = 4;
  std::array<int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// Borrows a tensor in some device's memory. The first dimension may have a stride (`row_stride`, in elements) larger
/// than a row, so that columns of a wider tensor can be viewed; the dimensions inside a row are contiguous. Copyable;
/// as thread-safe as the memory.
class TensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType dtype, Shape shape) : TensorView(data, dtype, shape, shape.row_elements()) {}
  TensorView(void* data, DType dtype, Shape shape, int64_t row_stride)
      : data_(static_cast<std::byte*>(data)), dtype_(dtype), shape_(shape), row_stride_(row_stride) {}

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] int64_t rows() const { return shape_[0]; }
  [[nodiscard]] int64_t row_elements() const { return shape_.row_elements(); }
  [[nodiscard]] int64_t row_stride() const { return row_stride_; }
  [[nodiscard]] bool contiguous() const { return rows() <= 1 || row_stride_ == row_elements(); }
  /// Bytes of the elements themselves, gaps between rows left out.
  [[nodiscard]] size_t bytes() const { return static_cast<size_t>(shape_.elements()) * SizeOf(dtype_); }

  [[nodiscard]] void* data() const { return data_; }
  /// The elements as `T`, which must be the C++ type of dtype().
  template <typename T>
  [[nodiscard]] T* As() const {
    CHECK(kDTypeOf<T> == dtype_);
    return reinterpret_cast<T*>(data_);
  }

  /// Rows [begin, end).
  [[nodiscard]] TensorView Rows(int64_t begin, int64_t end) const {
    CHECK(0 <= begin && begin <= end && end <= rows());
    TensorView part = *this;
    part.data_ += static_cast<size_t>(begin * row_stride_) * SizeOf(dtype_);
    part.shape_ = WithRows(end - begin);
    return part;
  }

  /// Columns [begin, end) of a matrix; keeps the row stride.
  [[nodiscard]] TensorView Columns(int64_t begin, int64_t end) const {
    CHECK_EQ(shape_.rank(), 2);
    CHECK(0 <= begin && begin <= end && end <= shape_[1]);
    return {data_ + static_cast<size_t>(begin) * SizeOf(dtype_), dtype_, {rows(), end - begin}, row_stride_};
  }

  /// The same elements with rows split into `a` x `b`: [n, a*b] -> [n, a, b].
  [[nodiscard]] TensorView SplitRows(int64_t a, int64_t b) const {
    CHECK_EQ(a * b, row_elements());
    return {data_, dtype_, {rows(), a, b}, row_stride_};
  }
  /// The same elements as a matrix: [n, a, b] -> [n, a*b].
  [[nodiscard]] TensorView AsMatrix() const { return {data_, dtype_, {rows(), row_elements()}, row_stride_}; }

 private:
  [[nodiscard]] Shape WithRows(int64_t n) const {
    switch (shape_.rank()) {
      case 1:
        return {n};
      case 2:
        return {n, shape_[1]};
      case 3:
        return {n, shape_[1], shape_[2]};
      default:
        return {n, shape_[1], shape_[2], shape_[3]};
    }
  }

  std::byte* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t row_stride_ = 0;
};

}  // namespace runahead
