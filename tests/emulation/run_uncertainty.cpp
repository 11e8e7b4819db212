// Runs cases from standard input through the CUDA launchers; outputs, one after the other, go to standard
// output. The protocol is that of test_uncertainty.py. Every buffer has the exact size, for the sanitizer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "cuda_runtime.h"
#include "sal_fast/launch.h"

namespace {

struct Case {
  int64_t backward, kind, dtype, rows, columns, row_stride, offset, upstream_stride, seed, most_blocks;
};

struct Buffer {
  static constexpr std::align_val_t kAligned{64};
  explicit Buffer(size_t bytes) : size(bytes), data(static_cast<char*>(operator new(bytes, kAligned))) {
    std::memset(data, 0xff, bytes);  // NaN in each of the types
  }
  ~Buffer() { operator delete(data, kAligned); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  size_t size;
  char* data;
};

void read(void* data, size_t bytes) {
  if (bytes && std::fread(data, 1, bytes, stdin) != bytes) std::exit(4);
}

}  // namespace

int main() {
  using namespace sal_fast;
  Case c;
  while (std::fread(&c, sizeof c, 1, stdin) == 1) {
    const size_t itemsize = c.dtype == 0 ? 4 : 2;
    const size_t used = c.rows ? ((c.rows - 1) * c.row_stride + c.columns) * itemsize : 0;
    Buffer logits(c.offset * itemsize + used);
    read(logits.data + c.offset * itemsize, used);
    const Logits view{logits.data + c.offset * itemsize, static_cast<DType>(c.dtype), c.rows, c.columns,
                      c.row_stride};
    const auto kind = static_cast<Kind>(c.kind);
    emulation::seed = static_cast<unsigned>(c.seed);
    emulation::most_blocks = static_cast<unsigned>(c.most_blocks);

    Buffer out(c.backward ? c.rows * c.columns * itemsize : c.rows * sizeof(float));
    int error;
    if (c.backward) {
      std::vector<float> upstream(c.rows ? (c.rows - 1) * c.upstream_stride + 1 : 0);
      read(upstream.data(), upstream.size() * sizeof(float));
      error = uncertainty_backward_cuda(view, kind, upstream.data(), c.upstream_stride, out.data, nullptr);
    } else {
      error = uncertainty_forward_cuda(view, kind, reinterpret_cast<float*>(out.data), nullptr);
    }
    if (error) return 5;
    std::fwrite(out.data, 1, out.size, stdout);
  }
}
