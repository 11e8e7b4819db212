// Runs launchers on request, for tests/emulation/conftest.py, which holds the protocol: requests come on
// standard input, results go to standard output. Every buffer has the exact size, for the sanitizer.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
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

// A field on the wire: its name, a kind, then an integer, a double, or the bytes of a tensor. Fields of
// nested structs are called struct.field.
struct Field {
  char name[64];
  int64_t integer = 0;
  double real = 0;
  std::unique_ptr<Buffer> buffer;
  size_t offset = 0;

  Field() {
    read(name, sizeof name);
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
};

using Fields = std::vector<Field>;

// Sets `value`, and the fields of a struct, from those on the wire. Counts what was used.
template <typename T>
void set(const Fields& fields, const std::string& name, T& value, size_t& used) {
  if constexpr (std::is_class_v<T>) {
    value.for_each_field([&](const char* part, auto& field) {
      if (std::strcmp(part, "workspace") != 0)
        set(fields, name.empty() ? part : name + "." + part, field, used);
    });
  } else {
    const auto found =
        std::find_if(fields.begin(), fields.end(), [&](const Field& field) { return name == field.name; });
    if (found == fields.end()) std::exit(6);
    ++used;
    if constexpr (std::is_pointer_v<T>) {
      value = found->buffer ? reinterpret_cast<T>(found->buffer->data + found->offset) : nullptr;
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(found->real);
    } else {
      value = static_cast<T>(found->integer);
    }
  }
}

using Run = std::function<int(const Fields&)>;

// The workspace has the size that the launcher asks for, and is NaN before.
template <typename Args>
Run adapt(int (*launcher)(const Args&, void*)) {
  return [launcher](const Fields& fields) {
    Args args{};
    size_t used = 0;
    set(fields, "", args, used);
    if (used != fields.size()) std::exit(6);
    if constexpr (kNeedsWorkspace<Args>) {
      const Buffer workspace(workspace_floats(args) * sizeof(float));
      std::memset(workspace.data, 0xff, workspace.size);
      args.workspace = reinterpret_cast<float*>(workspace.data);
      return launcher(args, nullptr);
    } else {
      return launcher(args, nullptr);
    }
  };
}

}  // namespace

int main() {
  std::map<std::string, Run> launchers;
#define SAL_FAST_ADD(name, Args) launchers[#name] = adapt<Args>(name##_cuda);
  SAL_FAST_LAUNCHERS(SAL_FAST_ADD)

  char name[64];
  while (std::fread(name, sizeof name, 1, stdin) == 1) {
    emulation::seed = static_cast<unsigned>(read<int64_t>());
    emulation::most_blocks = static_cast<unsigned>(read<int64_t>());
    const auto count = read<int64_t>();
    Fields fields;
    for (int64_t i = 0; i < count; ++i) fields.emplace_back();
    if (launchers.at(name)(fields)) return 5;
    for (const Field& field : fields)
      if (field.buffer)
        std::fwrite(field.buffer->data + field.offset, 1, field.buffer->size - field.offset, stdout);
    std::fflush(stdout);
  }
}
