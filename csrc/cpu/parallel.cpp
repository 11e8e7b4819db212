// torch's OpenMP threads spin for a while after each of its operators, against any others on their cores. So
// the work goes to them, wherever torch's runtime can be found in the process. (It has a file name of its
// own, so linking to OpenMP would load a second one.) A pool stands in elsewhere, and in forked children,
// where OpenMP has no threads and waits for them forever.
#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

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

class Pool {
 public:
  // False when another thread of the program is using the pool: the caller then does its work alone.
  bool run(Job& job, int helpers) {
    const std::unique_lock<std::mutex> only(busy_, std::try_to_lock);
    if (!only) return false;
    {
      const std::lock_guard<std::mutex> lock(state_);
      for (; size_ < helpers; ++size_) std::thread(&Pool::help, this).detach();
      job_ = &job;
      places_ = helpers;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(state_);
    places_ = 0;  // a thread that has not woken by now is not waited for
    done_.wait(lock, [&] { return helping_ == 0; });
    return true;
  }

 private:
  void help() {
    std::unique_lock<std::mutex> lock(state_);
    for (;;) {
      wake_.wait(lock, [&] { return places_ > 0; });
      --places_;
      ++helping_;
      Job& job = *job_;
      lock.unlock();
      job.work();
      lock.lock();
      if (--helping_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, state_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int size_ = 0, places_ = 0, helping_ = 0;
};

// Never destroyed: its threads may outlive the static objects. A forked child has no threads, so it gets a
// new one.
Pool* pool = nullptr;
bool forked = false;

Pool& the_pool() {
  static const int once = [] {
    pool = new Pool;
    return pthread_atfork(nullptr, nullptr, [] {
      pool = new Pool;
      forked = true;
    });
  }();
  (void)once;
  return *pool;
}

// void GOMP_parallel(function, its argument, threads, flags), of GCC's OpenMP runtime; null where it is not.
using OpenMpParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

OpenMpParallel openmp_parallel() {
  static const auto function = reinterpret_cast<OpenMpParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return forked ? nullptr : function;
}

}  // namespace

void parallel_for(int64_t rows, int64_t row_cost, int threads,
                  const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kGrain = 1 << 15;  // elements: about 10 us of work, as long as it takes to wake a thread
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_cost));
  const int64_t pieces = (rows + grain - 1) / grain;
  const int helpers = static_cast<int>(std::min<int64_t>(threads, pieces)) - 1;
  Job job{body, rows, grain};
  if (helpers < 1) return body(0, rows);
  Pool& own = the_pool();  // first: it notices forks
  if (const OpenMpParallel parallel = openmp_parallel()) {
    // The team has as many threads as torch asks for, because one of another size would be a new team.
    parallel([](void* data) { static_cast<Job*>(data)->work(); }, &job, static_cast<unsigned>(threads), 0);
  } else if (!own.run(job, helpers)) {
    body(0, rows);
  }
}

}  // namespace sal_fast
