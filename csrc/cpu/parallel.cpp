// torch's OpenMP threads spin for a while after each of its operators, against any others on their cores. So
// the work goes to them, wherever torch's runtime can be found in the process. (It has a file name of its
// own, so linking to OpenMP would load a second one.) New threads stand in elsewhere, and in forked children,
// where OpenMP has no threads and waits for them forever. A child may have been forked before this library
// was loaded. It is told from a new program by its stack, which begins at the same address as its parent's.
#include "parallel.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <vector>

namespace sal_fast {
namespace {

struct Job {
  const std::function<void(int64_t, int64_t)>& body;
  int64_t rows;
  int64_t grain;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t begin; (begin = next.fetch_add(grain)) < rows;) body(begin, std::min(begin + grain, rows));
  }
};

// The address at which a process's stack begins, field 28 of /proc/PID/stat. It is random for each program
// that starts. 0 if the system does not tell.
uint64_t stack_start(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream fields(line.substr(line.rfind(')') + 1));  // behind the name, which is field 2
  std::string field;
  for (int number = 3; number <= 28; ++number) fields >> field;
  return fields ? std::strtoull(field.c_str(), nullptr, 10) : 0;
}

bool is_forked() {
  const uint64_t own = stack_start(getpid());
  return own != 0 && own == stack_start(getppid());
}

const pid_t loaded_by = is_forked() ? 0 : getpid();

// void GOMP_parallel(function, its argument, threads, flags), of GCC's OpenMP runtime; null where it is not.
using OpenMpParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

OpenMpParallel openmp_parallel() {
  static const auto function = reinterpret_cast<OpenMpParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return getpid() == loaded_by ? function : nullptr;
}

}  // namespace

void parallel_for(int64_t rows, int64_t row_cost, int threads,
                  const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kGrain = 1 << 15;  // elements: about 10 us of work, as long as it takes to wake a thread
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_cost));
  const int64_t pieces = (rows + grain - 1) / grain;
  const int64_t helpers = std::min<int64_t>(threads, pieces) - 1;
  if (helpers < 1) return body(0, rows);
  Job job{body, rows, grain};
  if (const OpenMpParallel parallel = openmp_parallel()) {
    // The team has as many threads as torch asks for, because one of another size would be a new team.
    parallel([](void* data) { static_cast<Job*>(data)->work(); }, &job, static_cast<unsigned>(threads), 0);
    return;
  }
  std::vector<std::future<void>> others;
  for (int64_t i = 0; i < helpers; ++i)
    others.push_back(std::async(std::launch::async, [&job] { job.work(); }));
  job.work();
  for (auto& other : others) other.get();
}

}  // namespace sal_fast
