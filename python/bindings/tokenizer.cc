// Tokenizer and StreamDecoder.
#include "runahead/tokenizer.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"

namespace runahead::python {

using nb::literals::operator""_a;

void BindTokenizer(nb::module_& module) {
  nb::class_<Tokenizer>(module, "Tokenizer",
                        "The tokenizer of a model's folder, exactly as its own files say. Immutable; any thread may "
                        "use it.")
      .def(
          "__init__",
          [](Tokenizer* self, const std::filesystem::path& model_dir) {
            new (self) Tokenizer(WithoutGil([&] { return Tokenizer::Load(model_dir); }));
          },
          "model_dir"_a,
          "Reads tokenizer.json, or tokenizer.model where there is none. Raises IoError or ConfigError naming file, "
          "field and value; nothing is approximated.")
      .def(
          "encode",
          [](const Tokenizer& self, const std::string& text, bool add_special) {
            return WithoutGil([&] { return self.Encode(text, add_special); });
          },
          "text"_a, "add_special"_a = true,
          "The ids of `text`. With add_special, those are added that open and close a text by the model's files.")
      .def(
          "decode",
          [](const Tokenizer& self, nb::handle ids, bool skip_special) {
            const std::vector<int32_t> list = TokenIds(ids);
            return WithoutGil([&] { return self.Decode(list, skip_special); });
          },
          "ids"_a, "skip_special"_a = true,
          nb::sig("def decode(self, ids: TokenIds, skip_special: bool = True) -> str"),
          "The text of `ids`. Bytes that form no character become U+FFFD. Raises ConfigError naming an id that no "
          "token has.")
      .def("token_id", &Tokenizer::TokenId, "token"_a, "The id of a token spelt as in the vocabulary, or None.")
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size, "One more than the largest id.")
      .def_prop_ro("bos_id", &Tokenizer::bos_id)
      .def_prop_ro("eos_id", &Tokenizer::eos_id);

  nb::class_<StreamDecoder>(module, "StreamDecoder",
                            "Decodes ids one at a time; never returns a part of a character.")
      .def(nb::init<const Tokenizer&, bool>(), "tokenizer"_a, "skip_special"_a = true)
      .def("feed", &StreamDecoder::Feed, "id"_a, "The text that has become final.")
      .def("flush", &StreamDecoder::Flush, "The text that was held back. The stream then starts anew.");
}

}  // namespace runahead::python
