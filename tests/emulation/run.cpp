// Runs launchers on request, for tests/emulation/conftest.py, which holds the protocol: requests come on
// standard input, results go to standard output. Every buffer has the exact size, for the sanitizer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../csrc/bindings/launchers.h"
#include "cuda_runtime.h"

namespace {

using namespace sal_fast;

void read(void* data, size_t bytes) {
  if (bytes && std::fread(data, 1, bytes, stdin) != bytes) std::exit(4);
}

template <typename T>
T read() {
  T value;
  read(&value, sizeof value);
  return value;
}

struct Buffer {
  static constexpr std::align_val_t kAligned{64};
  explicit Buffer(size_t bytes) : size(bytes), data(static_cast<char*>(operator new(bytes, kAligned))) {}
  ~Buffer() { operator delete(data, kAligned); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  size_t size;
  char* data;
};

// A field on the wire: a kind, then an integer, a double, or the bytes of a tensor.
struct Field {
  int64_t integer = 0;
  double real = 0;
  std::unique_ptr<Buffer> buffer;
  size_t offset = 0;

  Field() {
    switch (read<char>()) {
      case 'i':
        integer = read<int64_t>();
        break;
      case 'f':
        real = read<double>();
        break;
      case 't':
        offset = read<int64_t>();
        buffer = std::make_unique<Buffer>(offset + read<int64_t>());
        read(buffer->data + offset, buffer->size - offset);
        break;
      default:
        std::exit(4);
    }
  }

  template <typename T>
  T as() const {
    if constexpr (std::is_same_v<T, Address>) {
      return {buffer ? reinterpret_cast<uintptr_t>(buffer->data + offset) : static_cast<uintptr_t>(integer)};
    } else if constexpr (std::is_same_v<T, Code>) {
      return {static_cast<int>(integer)};
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(real);
    } else {
      return static_cast<T>(integer);
    }
  }
};

using Run = std::function<int(const std::vector<Field>&)>;

template <typename Args, typename... Fields, size_t... i>
Run adapt(int (*launcher)(const Args&, void*), Signature<Fields...>, std::index_sequence<i...>) {
  return [launcher](const std::vector<Field>& fields) {
    if (fields.size() != sizeof...(Fields)) std::exit(6);
    return launcher(Args{fields[i].template as<Fields>()...}, nullptr);
  };
}

int64_t workspace_of(const SsimArgs& args) {
  return ssim_workspace(args);
}
int64_t workspace_of(const SaliencyLossArgs& args) {
  return saliency_loss_workspace(args);
}
template <typename Args>
int64_t workspace_of(const Args&) {
  return 0;
}

// Writes the floats of workspace into one field more, an int64 tensor.
template <typename Args, typename... Fields, size_t... i>
Run measure(Signature<Fields...>, std::index_sequence<i...>) {
  return [](const std::vector<Field>& fields) {
    if (fields.size() != sizeof...(Fields) + 1) std::exit(6);
    const int64_t floats = workspace_of(Args{fields[i].template as<Fields>()...});
    std::memcpy(fields.back().buffer->data + fields.back().offset, &floats, sizeof floats);
    return 0;
  };
}

}  // namespace

int main() {
  std::map<std::string, Run> launchers;
#define SAL_FAST_ADD(name, Args, ...)                                                      \
  {                                                                                        \
    constexpr std::make_index_sequence<std::tuple_size_v<std::tuple<__VA_ARGS__>>> fields; \
    launchers[#name] = adapt<Args>(name##_cuda, Signature<__VA_ARGS__>{}, fields);         \
    launchers[#name "_workspace"] = measure<Args>(Signature<__VA_ARGS__>{}, fields);       \
  }
  SAL_FAST_LAUNCHERS(SAL_FAST_ADD)

  char name[64];
  while (std::fread(name, sizeof name, 1, stdin) == 1) {
    emulation::seed = static_cast<unsigned>(read<int64_t>());
    emulation::most_blocks = static_cast<unsigned>(read<int64_t>());
    const auto count = read<int64_t>();
    std::vector<Field> fields;
    for (int64_t i = 0; i < count; ++i) fields.emplace_back();
    if (launchers.at(name)(fields)) return 5;
    for (const Field& field : fields)
      if (field.buffer)
        std::fwrite(field.buffer->data + field.offset, 1, field.buffer->size - field.offset, stdout);
    std::fflush(stdout);
  }
}
