// Runs launchers on request: requests come on standard input, results go to standard output. The protocol is
// in tests/emulation/conftest.py. Compiled against the emulation it runs on the host; compiled against CUDA,
// it replays recorded requests on a GPU, with buffers of exact size for compute-sanitizer.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
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

void check(int error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(static_cast<cudaError_t>(error)));
  std::exit(5);
}

// Memory of the device. Its end is exact, so that what lies beyond belongs to nobody.
class Buffer {
 public:
  Buffer(size_t offset, size_t bytes) : offset_(offset), bytes_(bytes) {
    check(cudaMalloc(&start_, offset + bytes));
  }
  ~Buffer() { check(cudaFree(start_)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return static_cast<char*>(start_) + offset_; }

  void read_from_input() {
    std::vector<char> content(bytes_);
    read(content.data(), bytes_);
    if (bytes_) check(cudaMemcpy(data(), content.data(), bytes_, cudaMemcpyHostToDevice));
  }
  void write_to_output() const {
    std::vector<char> content(bytes_);
    if (!bytes_) return;
    check(cudaMemcpy(content.data(), data(), bytes_, cudaMemcpyDeviceToHost));
    std::fwrite(content.data(), 1, bytes_, stdout);
  }

 private:
  void* start_ = nullptr;
  size_t offset_, bytes_;
};

// A field on the wire: its name, a kind, then an integer, a double, or the bytes of a tensor. Fields of
// nested structs are called struct.field.
struct Field {
  char name[64];
  int64_t integer = 0;
  double real = 0;
  std::unique_ptr<Buffer> buffer;

  Field() {
    read(name, sizeof name);
    switch (read<char>()) {
      case 'i':
        integer = read<int64_t>();
        break;
      case 'f':
        real = read<double>();
        break;
      case 't': {
        const auto offset = read<int64_t>();
        buffer = std::make_unique<Buffer>(offset, read<int64_t>());
        buffer->read_from_input();
        break;
      }
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
      value = found->buffer ? static_cast<T>(found->buffer->data()) : nullptr;
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(found->real);
    } else {
      value = static_cast<T>(found->integer);
    }
  }
}

using Run = std::function<int(const Fields&)>;

// The workspace has the size that the launcher asks for, and holds nothing before.
template <typename Args>
Run adapt(int (*launcher)(const Args&, void*)) {
  return [launcher](const Fields& fields) {
    Args args{};
    size_t used = 0;
    set(fields, "", args, used);
    if (used != fields.size()) std::exit(6);
    std::unique_ptr<Buffer> workspace;
    if constexpr (kNeedsWorkspace<Args>) {
      workspace = std::make_unique<Buffer>(0, workspace_floats(args) * sizeof(float));
      args.workspace = static_cast<float*>(workspace->data());
    }
    const int error = launcher(args, nullptr);
    return error ? error : static_cast<int>(cudaDeviceSynchronize());
  };
}

}  // namespace

int main() {
  std::map<std::string, Run> launchers;
#define SAL_FAST_ADD(name, Args) launchers[#name] = adapt<Args>(name##_cuda);
  SAL_FAST_LAUNCHERS(SAL_FAST_ADD)

  char name[64];
  while (std::fread(name, sizeof name, 1, stdin) == 1) {
    [[maybe_unused]] const auto seed = read<int64_t>(), most_blocks = read<int64_t>();
#ifdef SAL_FAST_EMULATED
    emulation::seed = static_cast<unsigned>(seed);
    emulation::most_blocks = static_cast<unsigned>(most_blocks);
#endif
    const auto count = read<int64_t>();
    Fields fields;
    for (int64_t i = 0; i < count; ++i) fields.emplace_back();
    check(launchers.at(name)(fields));
    for (const Field& field : fields)
      if (field.buffer) field.buffer->write_to_output();
    std::fflush(stdout);
  }
}
