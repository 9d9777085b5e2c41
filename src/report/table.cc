#include "report/table.h"

#include <algorithm>

#include "base/check.h"

namespace runahead::report {
namespace {

size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string Line(const std::vector<Column>& columns, const std::vector<size_t>& widths,
                 const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < columns.size(); ++i) {
    const std::string padding(widths[i] - Width(cells[i]), ' ');
    if (i > 0) line += "  ";
    line += columns[i].align == Align::kRight ? padding + cells[i] : cells[i] + padding;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

std::string FormatTable(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<std::string> names;
  for (const Column& column : columns) {
    widths.push_back(Width(column.name));
    names.push_back(column.name);
  }
  for (const std::vector<std::string>& row : rows) {
    CHECK_EQ(row.size(), columns.size());
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::vector<std::string> rule;
  for (const size_t width : widths) rule.emplace_back(width, '-');
  std::string table = Line(columns, widths, names) + Line(columns, widths, rule);
  for (const std::vector<std::string>& row : rows) table += Line(columns, widths, row);
  return table;
}

}  // namespace runahead::report
