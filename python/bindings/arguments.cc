// Arguments of Python as the library takes them.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>

#include "bindings.h"
#include "runahead/error.h"

namespace runahead::python {
namespace {

using IntegerArray = nb::ndarray<nb::ro, nb::ndim<1>, nb::device::cpu>;

template <typename T>
int32_t Checked(T id, size_t position) {
  if (!std::in_range<int32_t>(id)) {
    throw ConfigError("prompt: token id " + std::to_string(id) + " at position " + std::to_string(position) +
                      " does not fit 32 bits");
  }
  return static_cast<int32_t>(id);
}

/// The elements of `array`, which has the type T.
template <typename T>
std::vector<int32_t> Elements(const IntegerArray& array) {
  std::vector<int32_t> ids(array.shape(0));
  const T* elements = static_cast<const T*>(array.data());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = Checked(elements[static_cast<int64_t>(i) * array.stride(0)], i);
  return ids;
}

std::vector<int32_t> FromArray(const IntegerArray& array) {
  const nb::dlpack::dtype type = array.dtype();
  if (type == nb::dtype<int32_t>()) return Elements<int32_t>(array);
  if (type == nb::dtype<int64_t>()) return Elements<int64_t>(array);
  if (type == nb::dtype<uint32_t>()) return Elements<uint32_t>(array);
  if (type == nb::dtype<uint64_t>()) return Elements<uint64_t>(array);
  if (type == nb::dtype<int16_t>()) return Elements<int16_t>(array);
  if (type == nb::dtype<uint16_t>()) return Elements<uint16_t>(array);
  if (type == nb::dtype<int8_t>()) return Elements<int8_t>(array);
  if (type == nb::dtype<uint8_t>()) return Elements<uint8_t>(array);
  throw nb::type_error("prompt: expected an array of integers");
}

}  // namespace

std::vector<int32_t> TokenIds(nb::handle ids) {
  if (nb::isinstance<nb::str>(ids) || nb::isinstance<nb::bytes>(ids)) {
    throw nb::type_error("prompt: expected token ids, got text; Tokenizer.encode makes ids of it");
  }
  if (nb::ndarray_check(ids)) {
    IntegerArray array;
    if (!nb::try_cast(ids, array, /*convert=*/false)) {
      throw nb::type_error("prompt: expected an array of one dimension in host memory");
    }
    return FromArray(array);
  }
  std::vector<int32_t> list;
  for (const nb::handle id : nb::iter(ids)) {
    int64_t value = 0;
    if (!nb::try_cast(id, value)) throw nb::type_error("prompt: expected integers of at most 64 bits");
    list.push_back(Checked(value, list.size()));
  }
  return list;
}

PartitionRequest ToPartition(nb::handle partition) {
  if (nb::isinstance<nb::str>(partition)) return PartitionRequest::Parse(nb::cast<std::string>(partition));
  std::vector<double> fractions;
  if (!nb::try_cast(partition, fractions)) {
    throw nb::type_error("partition: expected a name (auto, even, searched, predicted) or a list of numbers");
  }
  return {PartitionKind::kManual, std::move(fractions)};
}

}  // namespace runahead::python
