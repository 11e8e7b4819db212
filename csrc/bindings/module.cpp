// sal_fast._C has <op>_cpu(fields, threads) and <op>_cuda(fields, workspace, stream) for every launcher.
// `fields` is a dict with the fields of launch/<op>.h by their names: numbers, enums as integers, nested
// structs as dicts, and for a pointer None or an object with data_ptr(). <op>_workspace(fields) tells the
// floats of workspace, where a launcher needs any, and is None elsewhere. Launchers of the CPU only have the
// first of these. <op>_prepared(fields) gives a launcher of the CPU that has read its fields: it is called as
// launcher(threads, *pointers), with the pointers in the order of the fields, the workspace left out, and
// nested structs in their places. sal_fast.ops checks and allocates, and keeps everything alive until the
// launcher returns.
#include <pybind11/pybind11.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "capability.h"
#include "launchers.h"

#define SAL_FAST_DECLARE(op, Args) void op##_cpu(const Args& args, int threads);
namespace sal_fast::generic {
SAL_FAST_LAUNCHERS(SAL_FAST_DECLARE)
SAL_FAST_CPU_LAUNCHERS(SAL_FAST_DECLARE)
}  // namespace sal_fast::generic
namespace sal_fast::avx2 {
SAL_FAST_LAUNCHERS(SAL_FAST_DECLARE)
SAL_FAST_CPU_LAUNCHERS(SAL_FAST_DECLARE)
}  // namespace sal_fast::avx2
namespace sal_fast::avx512 {
SAL_FAST_LAUNCHERS(SAL_FAST_DECLARE)
SAL_FAST_CPU_LAUNCHERS(SAL_FAST_DECLARE)
}  // namespace sal_fast::avx512

namespace py = pybind11;

namespace sal_fast {
namespace {

// The names of a struct's fields, interned as the keys of the dicts are: a look-up compares addresses. The
// workspace is no part of a dict, and null here. Never released: it outlives the interpreter.
template <typename Args>
const std::vector<PyObject*>& names_of() {
  static const std::vector<PyObject*> names = [] {
    std::vector<PyObject*> all;
    Args().for_each_field([&](const char* name, auto&) {
      all.push_back(std::strcmp(name, "workspace") == 0 ? nullptr : PyUnicode_InternFromString(name));
    });
    return all;
  }();
  return names;
}

template <typename T>
T* address_of(py::handle value) {
  static PyObject* const method = PyUnicode_InternFromString("data_ptr");
  if (value.is_none()) return nullptr;
  const auto address = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(value.ptr(), method));
  if (!address) throw py::error_already_set();
  void* const pointer = PyLong_AsVoidPtr(address.ptr());
  if (!pointer && PyErr_Occurred()) throw py::error_already_set();
  return static_cast<T*>(pointer);
}

template <typename Args>
Args read(py::handle fields);

template <typename T>
void read_into(py::handle value, T& field) {
  if constexpr (std::is_class_v<T>) {
    field = read<T>(value);
  } else if constexpr (std::is_pointer_v<T>) {
    field = address_of<std::remove_pointer_t<T>>(value);
  } else if constexpr (std::is_enum_v<T>) {
    field = static_cast<T>(value.cast<int>());
  } else {
    field = value.cast<T>();
  }
}

// A field that is missing, unknown or of another type is an error.
template <typename Args>
Args read(py::handle fields) {
  Args args{};
  Py_ssize_t known = 0;
  auto name = names_of<Args>().begin();
  args.for_each_field([&](const char* text, auto& field) {
    PyObject* const key = *name++;
    if (!key) return;
    PyObject* const value = PyDict_Check(fields.ptr()) ? PyDict_GetItemWithError(fields.ptr(), key) : nullptr;
    if (!value) throw py::type_error(std::string("the field ") + text + " is missing");
    ++known;
    try {
      read_into(value, field);
    } catch (const py::cast_error&) {
      throw py::type_error(std::string("the field ") + text + " is of another type");
    }
  });
  if (PyDict_Size(fields.ptr()) != known)
    throw py::type_error("there are fields that the launcher does not have");
  return args;
}

// Replaces the pointers of `args` by those given, in their order. `next` is moved behind those that were
// taken.
template <typename Args>
void replace_pointers(Args& args, const py::args& given, size_t& next) {
  args.for_each_field([&](const char* name, auto& field) {
    using T = std::remove_reference_t<decltype(field)>;
    if constexpr (std::is_class_v<T>) {
      replace_pointers(field, given, next);
    } else if constexpr (std::is_pointer_v<T>) {
      if (std::strcmp(name, "workspace") == 0) return;
      if (next == given.size()) throw py::type_error(std::string("the pointer ") + name + " is missing");
      field = address_of<std::remove_pointer_t<T>>(given[next++]);
    }
  });
}

template <typename Args>
void bind_cpu(py::module_& m, const std::string& name, void (*cpu)(const Args&, int)) {
  m.def((name + "_cpu").c_str(), [cpu](const py::dict& fields, int threads) {
    const Args args = read<Args>(fields);
    const py::gil_scoped_release unlocked;
    cpu(args, threads);
  });
  m.def((name + "_prepared").c_str(), [cpu](const py::dict& fields) {
    return py::cpp_function([cpu, prepared = read<Args>(fields)](int threads, const py::args& pointers) {
      Args args = prepared;
      size_t taken = 0;
      replace_pointers(args, pointers, taken);
      if (taken != pointers.size()) throw py::type_error("the launcher does not have so many pointers");
      const py::gil_scoped_release unlocked;
      cpu(args, threads);
    });
  });
}

template <typename Args>
void bind_cuda(py::module_& m, const std::string& name, int (*cuda)(const Args&, void*)) {
  m.def((name + "_cuda").c_str(),
        [cuda, name](const py::dict& fields, const py::object& workspace, uintptr_t stream) {
          Args args = read<Args>(fields);
          if constexpr (kNeedsWorkspace<Args>) args.workspace = address_of<float>(workspace);
          const py::gil_scoped_release unlocked;
          const int error = cuda(args, reinterpret_cast<void*>(stream));
          if (error != 0) throw std::runtime_error(name + ": " + cuda_error_string(error));
        });
  const std::string measure = name + "_workspace";
  if constexpr (kNeedsWorkspace<Args>) {
    m.def(measure.c_str(), [](const py::dict& fields) { return workspace_floats(read<Args>(fields)); });
  } else {
    m.attr(measure.c_str()) = py::none();
  }
}

}  // namespace
}  // namespace sal_fast

PYBIND11_MODULE(_C, m) {
  using namespace sal_fast;
  m.doc() = "The native core of sal_fast. Not public: use sal_fast.ops.";

  m.attr("version") = SAL_FAST_VERSION;
  m.attr("compiler") = SAL_FAST_COMPILER;
  m.attr("cuda_status") = cuda_status();
  m.def("cuda_problem", &cuda_problem);
  m.attr("cuda_toolkit") = SAL_FAST_CUDA_TOOLKIT;
  m.attr("cuda_architectures") = SAL_FAST_CUDA_ARCHITECTURES;
  const Capability capability = cpu_capability();
  m.def("cpu_capability", [capability] { return kCapabilityNames[capability]; });

#define SAL_FAST_BIND_CPU(op, Args) bind_cpu<Args>(m, #op, SAL_FAST_DISPATCH(capability, op##_cpu));
#define SAL_FAST_BIND_CUDA(op, Args) bind_cuda<Args>(m, #op, op##_cuda);
  SAL_FAST_LAUNCHERS(SAL_FAST_BIND_CPU)
  SAL_FAST_LAUNCHERS(SAL_FAST_BIND_CUDA)
  SAL_FAST_CPU_LAUNCHERS(SAL_FAST_BIND_CPU)
}
