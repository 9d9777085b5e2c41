// The harbour log's promises: the same everywhere, true answers, and facts that stand where the questions say.
#include "demo/harbour_log.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cstdint>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "demo/harbour_words.h"

namespace runahead::demo {
namespace {

constexpr size_t kSizes[] = {0, 300, 1200, 4000, 8000, 31200};

uint64_t Fnv1a(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// "Amber Heron" of "At which berth did the Amber Heron lie?": the two capitalised words after "the".
std::string NameIn(const std::string& question) {
  size_t begin = question.find(" the ");
  while (!std::isupper(static_cast<unsigned char>(question[begin + 5]))) begin = question.find(" the ", begin + 1);
  begin += 5;
  const size_t second = question.find(' ', begin) + 1;
  return question.substr(begin, question.find_first_of(" ?", second) - begin);
}

size_t CountIn(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(HarbourLog, DependsOnItsArgumentsAlone) {
  const HarbourLog log = WriteHarbourLog(7, 31200);
  EXPECT_EQ(log.text, WriteHarbourLog(7, 31200).text);
  EXPECT_NE(log.text, WriteHarbourLog(8, 31200).text);
  // The model was trained on exactly this generator: a change of these hashes asks for a new training.
  std::string asked;
  for (const Question& question : log.questions) asked += question.text + question.answer;
  EXPECT_EQ(Fnv1a(log.text), 0x1f066f052e7ce77eu);
  EXPECT_EQ(Fnv1a(asked), 0xd78849d2c24c5492u);
}

TEST(HarbourLog, KeepsToItsTarget) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (const size_t size : kSizes) {
      const HarbourLog log = WriteHarbourLog(seed, size);
      if (size < 600) {
        EXPECT_LE(log.text.size(), 600u);
      } else {
        EXPECT_LE(log.text.size(), size);
        EXPECT_GT(log.text.size() + 350, size);
      }
      EXPECT_EQ(log.text.back(), '\n');
      for (const char c : log.text) ASSERT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << static_cast<int>(c);
      EXPECT_EQ(log.text.find_first_of("{}"), std::string::npos);
    }
  }
}

TEST(HarbourLog, StatesEveryAskedFactTwiceInsideItsRangeAndNamesTheVesselNowhereElse) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    for (const size_t size : {2000u, 8000u, 31200u}) {
      const HarbourLog log = WriteHarbourLog(seed, size);
      ASSERT_FALSE(log.questions.empty());
      for (const Question& question : log.questions) {
        ASSERT_LT(question.fact_begin, question.fact_end);
        ASSERT_LE(question.fact_end, log.text.size());
        const std::string name = NameIn(question.text);
        const std::string range = log.text.substr(question.fact_begin, question.fact_end - question.fact_begin);
        EXPECT_GE(CountIn(range, name), 2u) << question.text;
        EXPECT_EQ(CountIn(log.text, name), CountIn(range, name)) << question.text;

        int stated = 0;
        std::istringstream lines(range);
        for (std::string line; std::getline(lines, line);) {
          const size_t at = line.find(name);
          if (at != std::string::npos && line.find(question.answer, at) != std::string::npos) ++stated;
        }
        EXPECT_GE(stated, 2) << question.text << " " << question.answer;
        EXPECT_EQ(question.answer.find_first_of(".\n"), std::string::npos);
      }
    }
  }
}

TEST(HarbourLog, GivesEveryVesselItsOwnNounInLogsOfEightThousandTokens) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const HarbourLog log = WriteHarbourLog(seed, 31200);
    std::set<std::string> nouns;
    for (const Question& question : log.questions) {
      const std::string name = NameIn(question.text);
      EXPECT_TRUE(nouns.insert(name.substr(name.find(' '))).second) << name;
    }
  }
}

TEST(FirstQuarterQuestions, AskOnlyWhatTheFirstQuarterKnows) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const HarbourLog log = WriteHarbourLog(seed, seed % 2 == 0 ? 31200 : 9000);
    const std::vector<Question> early = FirstQuarterQuestions(log);
    ASSERT_FALSE(early.empty()) << seed;
    for (const Question& question : early) {
      const std::string prompt = PromptFor(log, question);
      const std::string later = log.text.substr(prompt.size() / 4);
      EXPECT_LE(question.fact_end, prompt.size() / 4);
      EXPECT_EQ(CountIn(later, NameIn(question.text)), 0u) << question.text;
    }
  }
}

TEST(FirstQuarterQuestions, AreAmongAllQuestionsAndMissNone) {
  const HarbourLog log = WriteHarbourLog(3, 31200);
  size_t within = 0;
  for (const Question& question : log.questions) within += question.fact_end <= log.text.size() * 23 / 100;
  EXPECT_EQ(FirstQuarterQuestions(log).size(), within);
  EXPECT_LT(within, log.questions.size());
  EXPECT_TRUE(FirstQuarterQuestions(WriteHarbourLog(3, 0)).empty());
}

TEST(PromptFor, EndsWhereTheAnswerBegins) {
  const HarbourLog log = WriteHarbourLog(1, 4000);
  const Question question{.text = "Who commanded the Amber Heron?", .answer = "Nora Holt"};
  EXPECT_EQ(PromptFor(log, question), log.text + "\nQuestion: Who commanded the Amber Heron?\nAnswer:");
}

TEST(IsRightAnswer, ReadsUpToTheFirstFullStopOrNewline) {
  const Question question{.text = "At which berth did the Amber Heron lie?", .answer = "berth 12"};
  for (const char* reply : {" berth 12.", "berth 12", " berth 12\nQuestion: x", " berth 12 . More"}) {
    EXPECT_TRUE(IsRightAnswer(question, reply)) << reply;
  }
  for (const char* reply : {"", " ", ".", " berth 1.", " berth 123.", " Berth 12.", ". berth 12", "\nberth 12"}) {
    EXPECT_FALSE(IsRightAnswer(question, reply)) << reply;
  }
}

TEST(HarbourWords, NameTheVesselBeforeItsFacts) {
  for (const Words sentences : {ArrivalSentences(), NoteSentences(), DepartureSentences()}) {
    for (const std::string sentence : sentences) {
      EXPECT_EQ(sentence.find('{'), sentence.find("{v}")) << sentence;
      EXPECT_EQ(CountIn(sentence, "{v}"), 1u) << sentence;
      // Answers spell these two with their units.
      EXPECT_EQ(CountIn(sentence, "{b}"), CountIn(sentence, "berth {b}")) << sentence;
      EXPECT_EQ(CountIn(sentence, "{n}"), CountIn(sentence, "{n} tons")) << sentence;
    }
  }
  for (const std::string sentence : ArrivalSentences()) {
    for (const char mark : std::string(kFactMarks)) {
      EXPECT_EQ(CountIn(sentence, std::string{'{', mark, '}'}), 1u) << sentence << " " << mark;
    }
  }
  for (int fact = 0; fact < kFactCount; ++fact) {
    EXPECT_GE(QuestionsAbout(static_cast<Fact>(fact)).size(), 3u);
    for (const std::string question : QuestionsAbout(static_cast<Fact>(fact)))
      EXPECT_EQ(CountIn(question, "{v}"), 1u);
  }
}

}  // namespace
}  // namespace runahead::demo
