#include "base/undisturbed.h"

#include <unistd.h>

#include <ctime>
#include <fstream>
#include <string>

#include "base/deadline.h"

namespace runahead {

double StolenSeconds() {
  constexpr int kStolenField = 7;  // column in proc(5): user, nice, system, idle, iowait, irq, softirq, steal
  std::ifstream file("/proc/stat");
  std::string name;
  file >> name;
  int64_t ticks = 0;
  for (int field = 0; field <= kStolenField; ++field) file >> ticks;
  return file ? static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK)) : 0;
}

double ThreadSeconds() {
  constexpr double kNanosecondsPerSecond = 1e9;
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / kNanosecondsPerSecond;
}

double SecondsNow() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

}  // namespace runahead
