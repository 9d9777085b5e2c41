// Memory that is really there: the machine's, the cgroups' and the limits of the process.
#include "base/host_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/thread_room.h"
#include "tests/base/folder_test.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMega = 1'000'000;

/// A made-up /proc and /sys.
class HostMemoryTest : public FolderTest {
 protected:
  HostMemoryTest() { Put("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"); }

  void Put(const std::string& path, const std::string& content) {
    fs::create_directories((folder_ / path).parent_path());
    WriteFile(folder_ / path, content);
  }
  void PutVersion2(const std::string& group, const std::string& shows) {
    Put("proc/self/cgroup", "0::" + group + "\n");
    Put("proc/self/mountinfo", "35 30 0:26 " + shows + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
  }
  [[nodiscard]] FreeMemory Free() const { return FreeHostMemory(folder_); }
};

TEST_F(HostMemoryTest, TheMachineBoundsWhereNothingElseDoes) {
  EXPECT_EQ(Free().bytes, size_t{8'000'000} * 1024);
  EXPECT_EQ(Free().bound, "the machine");
  EXPECT_GT(FreeHostMemory().bytes, 0U);
}

TEST_F(HostMemoryTest, CountsTheGroupOfVersion2WithoutItsPageCache) {
  PutVersion2("/jobs/one", "/");
  Put("sys/fs/cgroup/jobs/one/memory.max", "200000000\n");
  Put("sys/fs/cgroup/jobs/one/memory.current", "150000000\n");
  Put("sys/fs/cgroup/jobs/one/memory.stat", "anon 5\ninactive_file 30000000\nactive_file 20000000\n");
  EXPECT_EQ(Free().bytes, 100 * kMega);
  EXPECT_EQ(Free().bound, "the memory cgroup /jobs/one");
}

TEST_F(HostMemoryTest, AGroupAboveBoundsToo) {
  PutVersion2("/jobs/one", "/");
  Put("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  Put("sys/fs/cgroup/jobs/one/memory.current", "5\n");
  Put("sys/fs/cgroup/jobs/memory.max", "300000000\n");
  Put("sys/fs/cgroup/jobs/memory.current", "100000000\n");
  EXPECT_EQ(Free().bytes, 200 * kMega);
}

TEST_F(HostMemoryTest, SeesTheMountsRootInAContainer) {
  for (const char* group : {"/", "/docker/0123"}) {
    PutVersion2(group, group);
    Put("sys/fs/cgroup/memory.max", "70000000\n");
    Put("sys/fs/cgroup/memory.current", "50000000\n");
    EXPECT_EQ(Free().bytes, 20 * kMega) << group;
  }
}

TEST_F(HostMemoryTest, CountsTheGroupOfVersion1) {
  Put("proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/a\n0::/\n");
  Put("proc/self/mountinfo",
      "31 30 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
      "32 30 0:26 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,hugetlb,memory\n");
  Put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
  Put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "60000000\n");
  Put("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "70000000\n");
  EXPECT_EQ(Free().bytes, 0U);
  Put("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 20000000\n");
  EXPECT_EQ(Free().bytes, 10 * kMega);
}

TEST_F(HostMemoryTest, CountsTheLimitsOfTheProcess) {
  for (const auto& [resource, field, name] :
       {std::tuple{RLIMIT_AS, "VmSize", "ulimit -v"}, std::tuple{RLIMIT_DATA, "VmData", "ulimit -d"}}) {
    Put("proc/self/status", std::string(field) + ":\t 100000 kB\n");
    const pid_t child = ::fork();
    if (child == 0) {
      const rlimit limit{3'000'000U * 1024, 3'000'000U * 1024};
      ::setrlimit(resource, &limit);
      const FreeMemory free = Free();
      const bool right = free.bytes == 2'900'000U * 1024 && free.bound.find(name) != std::string::npos;
      ::_exit(right ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << name;
  }
}

TEST(StartableThreads, AreBoundedByAddressSpace) {
  EXPECT_EQ(StartableThreads(50), 50);
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit limit{size_t{4} << 30, size_t{4} << 30};
    ::setrlimit(RLIMIT_AS, &limit);
    const int startable = StartableThreads(5000);
    ::_exit(startable > 0 && startable < 5000 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace runahead
