#include "ops/weight_format.h"

#include "base/check.h"

namespace runahead {

std::string_view Name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kStored:
      return "stored";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
    case WeightFormat::kFp8:
      return "fp8";
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown weight format");
}

std::optional<WeightFormat> ParseWeightFormat(std::string_view name) {
  for (const WeightFormat format :
       {WeightFormat::kStored, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    if (name == Name(format)) return format;
  }
  return std::nullopt;
}

}  // namespace runahead
