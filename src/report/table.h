// Aligned text tables.
#pragma once

#include <string>
#include <vector>

namespace runahead::report {

enum class Align : unsigned char { kLeft, kRight };

struct Column {
  std::string name;
  Align align = Align::kRight;
};

/// The columns' names, a rule, and the rows, two spaces between columns, no space at a line's end; ends with a
/// newline. Every row has a cell for each column. Widths count characters of UTF-8, not bytes.
std::string FormatTable(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows);

}  // namespace runahead::report
