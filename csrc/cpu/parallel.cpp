// A pool of our own and not OpenMP: torch brings an OpenMP runtime under a name of its own, and a second one
// in the process would have threads that spin against torch's.
#include "parallel.h"

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

Pool& the_pool() {
  static const int once = [] {
    pool = new Pool;
    return pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  }();
  (void)once;
  return *pool;
}

}  // namespace

void parallel_for(int64_t rows, int64_t row_cost, int threads,
                  const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kGrain = 1 << 15;  // elements: about 10 us of work, as long as it takes to wake a thread
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_cost));
  const int64_t pieces = (rows + grain - 1) / grain;
  const int helpers = static_cast<int>(std::min<int64_t>(threads, pieces)) - 1;
  Job job{body, rows, grain};
  if (helpers < 1 || !the_pool().run(job, helpers)) body(0, rows);
}

}  // namespace sal_fast
