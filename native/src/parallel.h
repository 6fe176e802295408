// Work on XLA's own threads, so that their number is the one that JAX was given.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace adaste {

// Calls task(0), ..., task(count - 1), each once, and returns when all have returned.
// Tasks must not throw. The caller works too, and waits only for tasks that run, so that
// a pool whose threads are all busy, or that has none, is no deadlock.
inline void Parallel(xla::ffi::ThreadPool& pool, int64_t count,
                     const std::function<void(int64_t)>& task) {
  struct State {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable all_done;
    int64_t done = 0;
  };
  auto state = std::make_shared<State>();
  // A helper that comes late finds no number left, and does not touch `task`.
  auto work = [state, count, &task] {
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      task(i);
      std::lock_guard<std::mutex> lock(state->mutex);
      if (++state->done == count) state->all_done.notify_all();
    }
  };
  for (int64_t i = 1; i < count; ++i) pool.Schedule(decltype(work)(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == count; });
}

}  // namespace adaste
